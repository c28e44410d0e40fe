"""Decides which of a user's environment variables training processes inherit: none that could change a result.

accelerate, torch and the libraries below them read settings from the environment, and some override the configuration;
a launcher's rank or address makes a process wait for peers that never connect. Of the variables of these libraries only
those in INHERITED are passed on: paths, caches, memory, devices, networks, logs. Other settings of theirs come from the
configuration (redsm5/engine/study/launch.py). All other variables are passed on unchanged. This module needs only the
standard library.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from fnmatch import translate


def _any_of(patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns.split()))


# Rank, world size and address of a process, as set by torchrun, MPI, PMI and a Slurm step.
LAUNCHER = _any_of("""
    RANK LOCAL_RANK NODE_RANK GROUP_RANK ROLE_RANK ROLE_NAME WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE
    ROLE_WORLD_SIZE MASTER_ADDR MASTER_PORT INIT_METHOD TORCHELASTIC_* TORCHCOMM_* PET_*
    PMI_* PMI2_* PMIX_* PALS_* OMPI_* PRTE_* MV2_* MPI_LOCAL* MPIRUN_* I_MPI_*
    SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_NPROCS SLURM_NTASKS SLURM_STEP_* SLURM_STEPID
    SMDATAPARALLEL_* SM_FRAMEWORK_* SM_HP_* SM_NUM_*
    """)
# The names that belong to accelerate, torch, transformers and their numerical libraries.
OWNED = _any_of("""
    ACCELERATE_* FORK_LAUNCHED FSDP_* DEEPSPEED_* MEGATRON_* PARALLELISM_CONFIG_* XLA_* PJRT_* TPU_* PT_HPU_*
    TORCH* PYTORCH_* PT2_* AOT_* AOTI_* AOTINDUCTOR_* ATEN_* INDUCTOR_* FX_GRAPH_* FX_PATCH_* DCP_* FAKE_ALLOW_META
    ENABLE_*TMA_* ENABLE_PYTORCH_* TENSORIFY_* PARTITIONER_* KINETO_* TRITON_* HALIDE_* CUTLASS_* CUTEDSL_* QUACK_*
    LTC_* NPU_FA2_* HCCL_* UNSAFE_SKIP_FSDP_MODULE_GUARDS STRICT_DEFAULT TEARDOWN_CUPTI DISABLE_CUPTI_LAZY_REINIT
    RPC_INIT_WITH_TCP _TORCHINDUCTOR_* _SPLITTER_*
    TRANSFORMERS_* FLASH_ATTENTION_* USE_TORCH* USE_TF USE_FLAX USE_JAX USE_HUB_KERNELS TRUST_REMOTE_CODE
    CUBLAS* CUDNN_* MIOPEN_* NVIDIA_TF32_OVERRIDE MKL_* ONEDNN_* DNNL_* OPENBLAS_* NPY_* PYTHONOPTIMIZE
    """)
# Those of them that affect only paths, speed or logging, and no result.
INHERITED = _any_of("""
    ACCELERATE_LOG_LEVEL ACCELERATE_ENABLE_RICH
    TORCH_HOME TORCH_HUB TORCH_MODEL_ZOO TORCH_EXTENSIONS_DIR TORCH_CUDA_ARCH_LIST TORCH_CPP_LOG_LEVEL TORCH_LOGS*
    TORCH_TRACE TORCH_SHOW_CPP_STACKTRACES TORCH_SYMBOLIZE_MODE TORCH_DISABLE_ADDR2LINE TORCH_ADDR2LINE_BINARY
    TORCH_DISTRIBUTED_DEBUG TORCH_NCCL_* TORCH_GLOO_* TORCH_FR_* TORCH_AUTOGRAD_SHUTDOWN_WAIT_LIMIT
    TORCHINDUCTOR_CACHE_DIR TORCHINDUCTOR_COMPILE_THREADS TRITON_CACHE_DIR TRITON_HOME TRITON_PTXAS_PATH
    TRITON_LIBDEVICE_PATH
    PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING
    PYTORCH_KERNEL_CACHE_PATH KINETO_LOG_LEVEL
    TRANSFORMERS_OFFLINE TRANSFORMERS_CACHE TRANSFORMERS_VERBOSITY TRANSFORMERS_NO_ADVISORY_WARNINGS
    CUBLAS*_LOG* CUDNN_LOG* CUDNN_HOME CUDNN_PATH CUDNN_LIBRARY MIOPEN_*_PATH
    MKL_NUM_THREADS MKL_DYNAMIC MKL_DOMAIN_NUM_THREADS MKL_VERBOSE* MKL_THREADING_LAYER MKL_SERVICE_FORCE_INTEL
    ONEDNN_VERBOSE* DNNL_VERBOSE* OPENBLAS_VERBOSE
    """)
# The variables that redsm5/engine/study/launch.py always sets itself.
SET = frozenset(
    {
        "PYTHONHASHSEED",
        "CUBLAS_WORKSPACE_CONFIG",
        "REDSM5_LAUNCHED",
        "TOKENIZERS_PARALLELISM",
        "HF_HUB_DISABLE_TELEMETRY",
        "PET_SHUTDOWN_TIMEOUT",
        "OPENBLAS_NUM_THREADS",
        "JE_ARROW_MALLOC_CONF",
        "PYTORCH_NVML_BASED_CUDA_CHECK",
    }
)


def became(name: str) -> str:
    """How training processes get a variable: "set" from the configuration, "removed", or "inherited"."""
    if name in SET:
        return "set"
    owned = LAUNCHER.match(name) or (OWNED.match(name) and not INHERITED.match(name))
    return "removed" if owned else "inherited"


def removed(environ: Iterable[str]) -> list[str]:
    """The names of those variables that training processes do not get."""
    return sorted(name for name in environ if became(name) == "removed")


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Those variables that training processes inherit, in addition to those that are set for them."""
    return {name: value for name, value in environ.items() if became(name) == "inherited"}


def clean(environ: MutableMapping[str, str]) -> None:
    """Remove the variables that could change a result. Libraries that are already imported may have read
    them before.
    """
    for name in removed(environ):
        del environ[name]


def start_over() -> None:
    """Restart this command without the variables that could change a result, and without Python's -O and -OO, since
    transformers needs its docstrings; do nothing if there are none. For commands that compute in this process.
    """
    if not removed(os.environ) and not sys.flags.optimize:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    words = [word for word in sys.orig_argv[1:] if word not in ("-O", "-OO")]
    os.execve(sys.executable, [sys.executable, *words], inherited(os.environ))
