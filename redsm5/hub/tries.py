"""Requests to the Hugging Face Hub: how often they are retried, and the error messages.

Refusals (401, 403, 404) are not retried; temporary failures (429, 5xx, timeouts, lost connections) are tried `TRIES`
times. No message and no log contains a token or a file's address, which may be signed.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any, Literal, NamedTuple, TypeVar

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import logging as library_logging
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]
from huggingface_hub.utils._http import default_client_factory  # the default to restore has no public name
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from redsm5.engine.errors import HubAccessError, HubError, HubUnavailableError

TRIES = 5
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # the pause after the first try, the second, ...
RETRY_AFTER_MAX_S = 120.0  # the longest pause that the Hub may ask for; its own windows are 5 minutes
_UNUSABLE = "the response is incomplete, or not from the Hub"

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Source(NamedTuple):
    """A repository of the Hub at a revision; `key` is the configuration's key that names it."""

    kind: Literal["dataset", "model"]
    repo_id: str
    revision: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.repo_id} at revision {self.revision}"

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"


# ---------------------------------------------------------------------------------------------------------------------
# tries


class Failure(Exception):
    """Why a request failed: in words and, if there was a response, its status and the Hub's own code."""

    def __init__(
        self,
        cause: str,
        *,
        transient: bool = True,
        status: int | None = None,
        code: str | None = None,
        had_token: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(cause)
        self.cause, self.transient, self.status, self.code = cause, transient, status, code
        self.had_token, self.retry_after_s = had_token, retry_after_s


def tried(source: Source, action: Callable[[], Result], tries: int = TRIES) -> Result:
    """Call `action`, which requests something from `source`, up to `tries` times, and return its result.

    Raises:
        HubAccessError: the Hub refuses it (401, 403).
        HubUnavailableError: every try failed, the last one with a transient error.
        HubError: it does not exist (404), or HF_HUB_OFFLINE is set.
    """
    if constants.is_offline_mode():
        raise HubError(
            f"{source} is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids downloading it",
            where=source.key,
            remedy="Unset HF_HUB_OFFLINE, or fill the cache on a machine with a network: "
            f"`hf download {source.repo_id} --repo-type {source.kind} --revision {source.revision}`.",
        )

    def warn(state: RetryCallState) -> None:
        failure, wait = state.outcome and state.outcome.exception(), state.next_action and state.next_action.sleep
        log.warning(f"{source}: {failure} (attempt {state.attempt_number} of {tries}); retrying in {wait:g} s")

    retrying = Retrying(
        stop=stop_after_attempt(tries),
        wait=_wait_s,
        sleep=sleep,
        retry=retry_if_exception(lambda error: isinstance(error, Failure) and error.transient),
        before_sleep=warn,
        reraise=True,
    )
    try:
        with _one_request_a_try():
            result: Result = retrying(_once, action)
            return result
    except Failure as failure:
        raise _explained(source, failure, retrying.statistics["attempt_number"]) from None


def _wait_s(state: RetryCallState) -> float:
    failure = state.outcome and state.outcome.exception()
    asked = failure.retry_after_s if isinstance(failure, Failure) else 0.0
    return max(WAITS_S[state.attempt_number - 1], min(asked, RETRY_AFTER_MAX_S))


def _once(action: Callable[[], Result]) -> Result:
    try:
        return action()
    except httpx2.HTTPError:
        raise Failure("the connection was lost") from None
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the network
            raise
        if type(error).__name__ == "XetAuthenticationError":  # from the Hub's file store as it renews its token
            raise Failure("refused", transient=False, status=401, had_token=True) from None
        raise Failure(_UNUSABLE) from None
    except (RuntimeError, ValueError, LookupError, TypeError, AssertionError):
        raise Failure(_UNUSABLE) from None


@contextmanager
def _one_request_a_try() -> Iterator[None]:
    """A context in which huggingface_hub neither retries requests by itself nor logs the addresses of files."""
    verbosity = library_logging.get_verbosity()
    library_logging.set_verbosity(logging.ERROR)
    set_client_factory(lambda: _Client(follow_redirects=True))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        library_logging.set_verbosity(verbosity)


class _Client(httpx2.Client):
    """An HTTP client that raises errors as `Failure`, which huggingface_hub does not know, so it neither retries nor
    hides them.
    """

    def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        if "timeout" in request.extensions:  # huggingface_hub requests file lists without a timeout
            limits: dict[str, float | None] = request.extensions["timeout"]
            limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
            request.extensions["timeout"] = {name: limit if s is None else s for name, s in limits.items()}
        try:
            response = super().send(request, **how)
        except httpx2.TransportError as error:
            raise _broken(error) from None
        if response.is_error:
            response.close()
            raise _refused(response)
        if how.get("stream") and isinstance(response.stream, httpx2.SyncByteStream):
            begun_anew = "range" in request.headers and response.status_code != 206
            response.stream = _Body(response.stream, resumable=not begun_anew)
        return response


class _Body(httpx2.SyncByteStream):
    """A response body that may end early. huggingface_hub then requests the rest of a long one, and so makes progress.
    Otherwise (a short body, or one that restarted from the beginning) the try fails.
    """

    def __init__(self, stream: httpx2.SyncByteStream, *, resumable: bool) -> None:
        self._stream, self._resumable = stream, resumable

    def __iter__(self) -> Iterator[bytes]:
        arrived = 0
        try:
            for chunk in self._stream:
                arrived += len(chunk)
                yield chunk
        except httpx2.TransportError as error:
            if self._resumable and arrived >= constants.DOWNLOAD_CHUNK_SIZE:  # less is still in a buffer, and is lost
                raise httpx2.RemoteProtocolError("cut") from None
            raise _broken(error) from None

    def close(self) -> None:
        self._stream.close()


def _broken(error: httpx2.TransportError) -> Failure:
    if isinstance(error, httpx2.TimeoutException):
        return Failure("timeout")
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return Failure(f"no connection to {constants.ENDPOINT}")
    return Failure("the connection was lost")  # before the response, or in the middle of a file


def _refused(response: httpx2.Response) -> Failure:
    status, limits = response.status_code, parse_ratelimit_headers(response.headers)
    asked = response.headers.get("Retry-After", "")
    wait_s = limits.reset_in_seconds if limits and not limits.remaining else int(asked) if asked.isdigit() else 0
    elsewhere = response.request.url.host != httpx2.URL(constants.ENDPOINT).host  # a signed address expired
    return Failure(
        f"status {status}",
        transient=status in (408, 429) or status >= 500 or (status == 403 and elsewhere),
        status=status,
        code=response.headers.get("X-Error-Code"),
        had_token="authorization" in response.request.headers,
        retry_after_s=wait_s,
    )


# ---------------------------------------------------------------------------------------------------------------------
# messages


def _explained(source: Source, failure: Failure, tries: int) -> HubError:
    """A failure as the error that a person sees."""
    kind: type[HubError] = HubUnavailableError if failure.transient else HubError
    cause, remedy = failure.cause, f"See {source.page}."
    if failure.transient:
        cause = "too many requests" if failure.status == 429 else "server error" if failure.status else cause
        remedy = (
            "Run the same command again later: complete files stay in the cache. Without a network, fill the "
            "cache on another machine and set HF_HUB_OFFLINE=1."
        )
    elif failure.status in (401, 403):
        kind = HubAccessError
        cause, remedy = _access(source, failure)
    elif failure.status == 404:
        cause, remedy = _missing(source, failure)
    facts = "1 try" if tries == 1 else f"{tries} tries"
    facts += f", last status {failure.status}" if failure.status else ""
    return kind(f"{source}: {cause} ({facts})", where=source.key, remedy=remedy)


def _access(source: Source, failure: Failure) -> tuple[str, str]:
    gated = failure.code == "GatedRepo"
    terms = f"accept its terms on {source.page}"
    from_environment = any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    use_it = (
        "set HF_TOKEN to it (HF_TOKEN takes precedence over a login), and run the same command again"
        if from_environment
        else "log in with it (`hf auth login`)"
    )
    if not failure.had_token:
        cause = (
            "it is gated, and there is no token" if gated else "it is private or does not exist, and there is no token"
        )
        return cause, f"Log in (`hf auth login`), or set HF_TOKEN, and {terms} if it is gated. Also check its name."
    if failure.status == 401:
        cause = "the token is not valid, or has expired or been revoked"
        return cause, f"Create a new token on {constants.ENDPOINT}/settings/tokens and {use_it}."
    if gated:
        cause = "it is gated, and the token's account has no access"
        return cause, f"With that account, {terms}; some requests are approved manually, which takes time."
    cause = "the token may not read it"
    remedy = f"Allow it to read gated repositories on {constants.ENDPOINT}/settings/tokens, or use another token."
    return cause, remedy


def _missing(source: Source, failure: Failure) -> tuple[str, str]:
    section = source.key.split(".")[0]
    if failure.code == "RevisionNotFound":
        return "there is no such revision", f"Set {section}.revision to a branch, tag or commit of {source.page}."
    if failure.code == "EntryNotFound":
        return "a required file is missing", f"See {source.page}, or choose another revision."
    remedy = f"Check {source.key}. A private repository needs a token of a member (`hf auth login`, HF_TOKEN)."
    return "there is no such repository, or the token has no access to it", remedy
