"""The environment changes no result: what becomes of each variable that the libraries read is decided, one by one."""

import pytest

from redsm5.engine.environment import became, clean
from tests.engine.environment_names import LIST, rows


def test_what_becomes_of_each_variable_that_the_libraries_read_is_on_the_list() -> None:
    """A new version that reads another one fails here, until somebody has decided what becomes of it."""
    listed, found = LIST.read_text().splitlines(), rows()
    new, gone = sorted(set(found) - set(listed)), sorted(set(listed) - set(found))
    assert (
        not new
    ), f"decide in redsm5/engine/environment.py, then renew {LIST.name} (tests/engine/environment_names.py says how)"
    assert not gone, f"no longer read, or decided otherwise: renew {LIST.name}"


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        # What torch's compiled part, its libraries, NumPy and Python itself read; no scan of sources finds these.
        ("inherited", "GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME NCCL_IB_TIMEOUT TORCH_NCCL_ENABLE_MONITORING"),
        ("inherited", "CUDA_LAUNCH_BLOCKING CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES OMP_WAIT_POLICY MKL_NUM_THREADS"),
        ("inherited", "PYTORCH_CUDA_ALLOC_CONF TORCH_CPP_LOG_LEVEL TORCH_LOGS CUBLASLT_LOG_LEVEL MKL_VERBOSE"),
        ("inherited", "HF_HUB_OFFLINE HF_ENDPOINT REQUESTS_CA_BUNDLE SSL_CERT_FILE HTTPS_PROXY SLURM_JOB_ID"),
        ("removed", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE NVIDIA_TF32_OVERRIDE TORCH_BLAS_PREFER_CUBLASLT"),
        ("removed", "TORCH_CUDNN_V8_API_DISABLED TORCH_LINALG_PREFER_CUSOLVER CUBLAS_EMULATION_STRATEGY"),
        ("removed", "PYTORCH_ENABLE_MPS_FALLBACK PYTORCH_TUNABLEOP_ENABLED TORCH_MKLDNN_MATMUL_MIN_DIM"),
        ("removed", "MKL_CBWR MKL_ENABLE_INSTRUCTIONS ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ATEN_CPU_CAPABILITY"),
        ("removed", "OPENBLAS_CORETYPE NPY_DISABLE_CPU_FEATURES PYTHONOPTIMIZE"),
        # What names that are put together at run time come to.
        ("removed", "ACCELERATE_DYNAMO_BACKEND ACCELERATE_DYNAMO_USE_DYNAMIC ACCELERATE_FP8_FORMAT FSDP_VERSION"),
        ("removed", "ACCELERATE_PARALLELISM_CONFIG MEGATRON_LM_TP_DEGREE PET_NNODES PET_NPROC_PER_NODE"),
        ("removed", "RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID PMI_RANK PMI_SIZE"),
        ("removed", "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE MV2_COMM_WORLD_RANK MPI_LOCALRANKID MPI_LOCALNRANKS"),
        ("removed", "SLURM_PROCID SLURM_LOCALID SLURM_NTASKS SLURM_STEP_NUM_TASKS"),
        ("set", "PYTHONHASHSEED CUBLAS_WORKSPACE_CONFIG TOKENIZERS_PARALLELISM PET_SHUTDOWN_TIMEOUT"),
    ],
)
def test_what_no_scan_finds_is_decided_too(expected: str, names: str) -> None:
    assert {name: became(name) for name in names.split()} == dict.fromkeys(names.split(), expected)


def test_a_process_that_computes_by_itself_cleans_its_own() -> None:
    environ = {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "false", "HOME": "/root", "PET_SHUTDOWN_TIMEOUT": "86400"}
    clean(environ)
    assert environ == {"HOME": "/root", "PET_SHUTDOWN_TIMEOUT": "86400"}
