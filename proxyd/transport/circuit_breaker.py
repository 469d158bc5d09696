"""Circuit breaker: stops calls to an upstream that keeps failing (docs/spec/operations.md#d4).

::

    CLOSED ──failures in a row──▶ OPEN ──its time is over──▶ TRIAL ──success──▶ CLOSED
                                   ▲                           │
                                   └────────failure────────────┘

One circuit for each origin. A failure is a connection that could not be made or kept until the response began, or a
gateway's error: 502, 503, 504. Any other status, 429 and other 4xx included, shows that the upstream works. While a
circuit is open its calls are refused at once, so that a ``fallback`` serves without waiting; then a single call is
admitted as a trial. The numbers are those of Envoy's outlier detection: 5 in a row, 30 s × n, 300 s at most; 1 s at
most for a server on this machine.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

from proxyd.errors import NO_RETRY, Overloaded
from proxyd.urls import is_loopback_url

__all__ = ["GATEWAY_ERRORS", "CircuitState", "Circuits", "State"]

#: Statuses with which a gateway responds in place of the upstream behind it.
GATEWAY_ERRORS = frozenset({502, 503, 504})

_MAX_OPEN_S = 300.0
#: A server on this machine is soon back when it restarts, and a connection that is refused there costs nothing.
_MAX_LOOPBACK_OPEN_S = 1.0
#: The longest delay before an ordinary retry of a client (docs/spec/messages-api.md#sdk-retries).
_MAX_CLIENT_DELAY_S = 8
#: ``retry-after`` for a call that is refused during a trial.
_TRIAL_RETRY_S = 1


class State(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class CircuitState:
    """Snapshot of one circuit.

    Attributes:
        failures: failures in a row so far.
        open_for_s: how long it stays open, 0 if it is not open.
        cause: the last failure.
    """

    origin: str
    state: State
    failures: int
    open_for_s: float
    cause: str = ""


@dataclass(slots=True)
class _Circuit:
    state: State = State.CLOSED
    failures: int = 0
    times_opened: int = 0
    open_until: float = 0.0
    cause: str = ""
    is_permanent: bool = False


class Circuits:
    """The circuits of all origins. Every call that was admitted must report exactly one of the three outcomes.

    Args:
        threshold: failures in a row that open a circuit; 0 never opens one.
        open_s: how long the first opening lasts; the n-th in a row lasts n times as long.
        clock: a monotonic clock, in seconds.
        on_change: called with the circuit after each change of its state.
    """

    def __init__(
        self,
        threshold: int,
        open_s: float,
        clock: Callable[[], float],
        on_change: Callable[[CircuitState], None] = lambda _: None,
    ) -> None:
        self._threshold = threshold
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        #: Only origins that have failed since their last success.
        self._circuits: dict[str, _Circuit] = {}

    def admit(self, origin: str) -> None:
        """Admit a call.

        Raises:
            Overloaded: the circuit is open, or its trial is in progress.
        """
        circuit = self._circuits.get(origin)
        if circuit is None or circuit.state is State.CLOSED:
            return
        left_s = circuit.open_until - self._clock()
        if circuit.state is State.OPEN and left_s <= 0:
            self._change_state(origin, circuit, State.TRIAL)
            return
        wait_s = max(1, math.ceil(left_s)) if circuit.state is State.OPEN else _TRIAL_RETRY_S
        cause = f"; the last failure: {circuit.cause}" if circuit.cause else ""
        can_retry = wait_s <= _MAX_CLIENT_DELAY_S and not circuit.is_permanent
        raise Overloaded(
            f"{origin.partition('://')[2]} failed {circuit.failures} times in a row and is left alone; "
            f"try again in {wait_s} s{cause}",
            headers={"retry-after": str(wait_s), **({} if can_retry else NO_RETRY)},
        )

    def succeeded(self, origin: str) -> None:
        """Report a response of the origin itself."""
        circuit = self._circuits.pop(origin, None)
        if circuit is not None and circuit.state is not State.CLOSED:
            self._on_change(CircuitState(origin, State.CLOSED, 0, 0.0))

    def failed(self, origin: str, cause: str = "", *, is_permanent: bool = False) -> None:
        """Report a failed connection, a missing response or a gateway's error.

        Args:
            cause: what happened, for the message of calls that are refused later; without prompts and keys.
            is_permanent: a repeated call would fail too, so the refused calls say that clients should not retry.
        """
        if not self._threshold:
            return
        circuit = self._circuits.setdefault(origin, _Circuit())
        circuit.failures += 1
        circuit.cause = cause
        circuit.is_permanent = is_permanent
        # A call that had begun before the circuit opened says nothing new.
        if circuit.state is State.TRIAL or (
            circuit.state is State.CLOSED and circuit.failures >= self._threshold
        ):
            circuit.times_opened += 1
            limit_s = _MAX_LOOPBACK_OPEN_S if is_loopback_url(origin) else _MAX_OPEN_S
            circuit.open_until = self._clock() + min(self._open_s * circuit.times_opened, limit_s)
            self._change_state(origin, circuit, State.OPEN)

    def abandoned(self, origin: str) -> None:
        """Report a call that says nothing about the origin: it was cancelled, or this machine ran out of resources. If
        it was the trial, the next call is the trial.
        """
        circuit = self._circuits.get(origin)
        if circuit is not None and circuit.state is State.TRIAL:
            circuit.open_until = self._clock()
            self._change_state(origin, circuit, State.OPEN)

    def states(self) -> list[CircuitState]:
        """Return every circuit that has counted failures."""
        return [self._snapshot(origin, circuit) for origin, circuit in self._circuits.items()]

    def _change_state(self, origin: str, circuit: _Circuit, state: State) -> None:
        circuit.state = state
        self._on_change(self._snapshot(origin, circuit))

    def _snapshot(self, origin: str, circuit: _Circuit) -> CircuitState:
        left_s = max(0.0, circuit.open_until - self._clock()) if circuit.state is State.OPEN else 0.0
        return CircuitState(origin, circuit.state, circuit.failures, left_s, circuit.cause)
