"""Removes secrets from what is shown, logged and saved. Needs only the standard library."""

import os
import re

REDACTED = "[redacted]"
SHORTEST = 8  # characters: a shorter value would take harmless words along
_SECRET_VARIABLES = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "PGPASSWORD",
)

_NO_SECRETS = ("PWD",)  # by its name a password, and a folder
# Rather a harmless word too many than a secret: what follows a name like these is taken for one.
_SECRET_NAME = (
    r"(?:api[_-]?keys?|apikey|(?:access|secret|private|account|auth|encryption)[_-]?key(?:[_-]id)?"
    r"|secret|token(?!s)|passw(?:or)?d|passphrase|pwd|credentials?|authorization)"
)
SECRET_KEY = re.compile(rf"(?i)(?:^|[_.\s-]){_SECRET_NAME}$")
_VALUE = r"""(?:"[^"]*"|'[^']*'|(?:(?:bearer|basic|token)\s+)?[^\s"',;&)}\]]+)"""

_REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", REDACTED),
        # scheme://user:password@host; a password may hold "/" and "@", so up to the last "@" of the word.
        (r"""(://[^\s:/@]*(?:@[^\s:/@]*)?:)[^\s"'<>]{1,300}(?=@)""", rf"\1{REDACTED}"),
        # One with spaces, quotes or brackets: up to the first "@", but not from a port or over another address.
        (
            r"""(://[^\s:/@]*(?:@[^\s:/@]*)?:)(?!\d{1,5}(?:[/?#\s"'<>,;)\]}]|$))(?:(?!://)[^@\n]){1,1000}"""
            r"""(?:@[^\s"'<>]{1,300})?(?=@)""",
            rf"\1{REDACTED}",
        ),
        (r"(?i)(https?://)[^\s:/@\"'<>]{1,300}(?=@)", rf"\1{REDACTED}"),  # a token in the place of the user
        # Hugging Face, but not hf_transfer and other names of things.
        (r"(?<![A-Za-z0-9])hf_(?!(?:transfer|transformers|token|home|hub|datasets|xet)\b)[A-Za-z0-9]{4,}", REDACTED),
        (r"(?<![A-Za-z0-9])api_org_[A-Za-z0-9]{4,}", REDACTED),
        (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{6,}", REDACTED),
        (r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{12,}", REDACTED),
        (r"(?<![A-Za-z0-9])(?:gh[oprsu]_|github_pat_|glpat-|xox[abeoprs]-|AIza|ya29\.|pypi-)[\w.-]{10,}", REDACTED),
        (r"(?<![\w-])eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?", REDACTED),
        (rf"(?i)({_SECRET_NAME}[\"']?\s*[:=]\s*){_VALUE}", rf"\1{REDACTED}"),
        (r"(?i)(?<![A-Za-z0-9])(key=)(?!\[redacted|value\b)[^\s\"',;&)}\]]+", rf"\1{REDACTED}"),
        (r"(?i)\b(bearer\s+)[\w.~+/=-]{4,}", rf"\1{REDACTED}"),
        (r"(?<![\w.+%-])[\w.+%-]++@[\w-]+(?:\.[\w-]+)+", REDACTED),
    )
)


def redact(text: str) -> str:
    """The text with "[redacted]" in place of tokens, API keys, Bearer headers, passwords in URLs, e-mail addresses, and
    values of secret environment variables, which a server's response may repeat.
    """
    for name in _SECRET_VARIABLES:
        if len(value := os.environ.get(name, "")) >= SHORTEST:
            text = text.replace(value, REDACTED)
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def redact_address(address: str) -> str:
    """A URL as it may be saved: without its password, whatever characters it has, and without everything that `redact`
    removes. The result does not depend on a secret used as the password.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return redact(address)
    rest = re.sub(r"(?s)\A([^:/]*:).+(?=@)", rf"\1{REDACTED}", rest)
    if scheme.lower() in ("http", "https"):
        rest = re.sub(r"(?s)\A[^:/]+(?=@)", REDACTED, rest)  # a token in the place of the user
    return f"{scheme}{redact(mark + rest)}"


def secret_variables() -> dict[str, str]:
    """The variables of the environment that hold a secret, as their names say, with their values."""
    names = [n for n in os.environ if n in _SECRET_VARIABLES or (SECRET_KEY.search(n) and n not in _NO_SECRETS)]
    return {name: os.environ[name] for name in names if os.environ[name]}
