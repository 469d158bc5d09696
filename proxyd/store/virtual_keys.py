"""Virtual keys: keys of the proxy's own that clients send in place of a vendor's, with limits, alone and in teams.

Only the SHA-256 of a key is kept. A key has 40 random characters, so nobody can find it by trying; a slow hash, as
for passwords, would only slow each call down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = [
    "PERIODS",
    "UNITS",
    "Directory",
    "Limit",
    "Spent",
    "Team",
    "VirtualKey",
    "digest_of",
    "end_of",
    "in_unit",
    "is_virtual",
    "new_secret",
    "parse_expiry",
    "parse_limit",
    "start_of",
]

#: Begins as vendors' keys do, so that everything that masks those masks it.
_PREFIX = "sk-cp-"
_SECRET_CHARS = 40
_ALPHABET = string.ascii_letters + string.digits
#: The periods of limits. Days, weeks (from Monday) and months are those of the local time zone.
PERIODS = ("minute", "day", "week", "month")
UNITS = ("usd", "tokens", "calls")
_SPAN = re.compile(r"(\d{1,5})([hdw])\Z")
_SPAN_S = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}
_AMOUNT = re.compile(r"\$?(\d{1,12}(?:\.\d{1,6})?)([kKmM])?\Z")
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used, in each unit of limits."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.usd + other.usd, self.tokens + other.tokens, self.calls + other.calls)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.usd - other.usd, self.tokens - other.tokens, self.calls - other.calls)

    def of(self, unit: str) -> float:
        return float(getattr(self, unit))


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of a unit in each period."""

    amount: float
    unit: str
    period: str

    def __str__(self) -> str:
        return f"{in_unit(self.amount, self.unit)} a {self.period}"


def in_unit(amount: float, unit: str) -> str:
    """Return an amount for people: ``$20.00``, ``1500 tokens``, ``60 calls``."""
    return f"${amount:,.2f}" if unit == "usd" else f"{amount:,.0f} {unit}"


@dataclass(frozen=True, slots=True)
class Team:
    """Keys that share limits.

    Attributes:
        streams: most calls in flight of all its keys; None for no limit.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    streams: int | None = None

    @property
    def owner(self) -> str:
        """Its name in the records of usage."""
        return f"team:{self.name}"


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """One key, without its secret. Times are Unix times.

    Attributes:
        id: outlives a rotation; usage is recorded by it.
        digest: of the secret.
        models: patterns of the models that it may use; empty for all.
        streams: most calls in flight; None for no limit.
        team: name of its team.
    """

    id: str
    name: str
    digest: str
    created_at: float
    models: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    streams: int | None = None
    team: str | None = None
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def owner(self) -> str:
        """Its name in the records of usage."""
        return f"key:{self.id}"

    def state_at(self, now: float) -> str:
        """Return ``active``, ``revoked`` or ``expired``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def may_use(self, names: Iterable[str]) -> bool:
        """Return whether a model that has these names may be used."""
        return not self.models or any(fnmatchcase(name, pattern) for name in names for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Directory:
    """All keys and teams."""

    keys: tuple[VirtualKey, ...] = ()
    teams: tuple[Team, ...] = ()

    def key(self, name: str) -> VirtualKey | None:
        return next((each for each in self.keys if each.name == name), None)

    def team(self, name: str | None) -> Team | None:
        return next((each for each in self.teams if each.name == name), None)


def new_secret() -> str:
    """Create a key."""
    return _PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_CHARS))


def is_virtual(value: str) -> bool:
    """Return whether a credential has the form of a virtual key, of this proxy or of another."""
    return value.startswith(_PREFIX)


def digest_of(secret: str) -> str:
    """Return what is kept of a key. Header bytes that are not UTF-8 arrive as lone surrogates."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def parse_limit(text: str, unit: str) -> Limit:
    """Read ``20/day``, ``2m/month``.

    Raises:
        ValueError: it is none; the message says what is expected.
    """
    amount, _, period = text.strip().partition("/")
    match = _AMOUNT.match(amount.strip())
    if match is None or period.strip() not in PERIODS or (unit != "usd" and amount.startswith("$")):
        example = "20/day" if unit == "usd" else "2m/month" if unit == "tokens" else "500/day"
        raise ValueError(
            f"expected an amount and a period ({', '.join(PERIODS)}) such as {example}; got {text!r}"
        )
    value = float(match[1]) * _SCALE[(match[2] or "").lower()]
    if value <= 0:
        raise ValueError(f"expected an amount above 0; got {text!r}")
    return Limit(value, unit, period.strip())


def parse_expiry(text: str, now: float) -> float:
    """Read ``90d``, ``12h``, ``4w`` or a date such as ``2027-03-31``, whose end is meant, in the local time zone.

    Raises:
        ValueError: it is none of them, or in the past.
    """
    match = _SPAN.match(text)
    if match is not None:
        until = now + int(match[1]) * _SPAN_S[match[2]]
    else:
        try:
            day = time.strptime(text, "%Y-%m-%d")
        except ValueError:
            raise ValueError(
                f"expected a span such as 90d, 12h, 4w, or a date such as 2027-03-31; got {text!r}"
            ) from None
        until = time.mktime((day.tm_year, day.tm_mon, day.tm_mday + 1, 0, 0, 0, 0, 0, -1))
    if until <= now:
        raise ValueError(f"expected a time in the future; got {text!r}")
    return until


def start_of(period: str, now: float) -> int:
    """Return the Unix time at which the period of `now` began."""
    return _begin(period, now, 0)


def end_of(period: str, now: float) -> int:
    """Return the Unix time at which the period of `now` ends."""
    return _begin(period, now, 1)


def _begin(period: str, now: float, step: int) -> int:
    if period == "minute":
        return (int(now) // 60 + step) * 60
    day = time.localtime(now)
    year, month, date = day.tm_year, day.tm_mon, day.tm_mday
    if period == "day":
        date += step
    elif period == "week":
        date += 7 * step - day.tm_wday
    else:
        month, date = month + step, 1
    return int(time.mktime((year, month, date, 0, 0, 0, 0, 0, -1)))  # which carries 32 January over
