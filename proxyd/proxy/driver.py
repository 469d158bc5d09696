"""What the two drivers of attempts share.

A driver carries one attempt of a call: it builds the request, opens the attempt and forwards the response to the
client. There is one for each mode of a route (`proxyd.proxy.driver_translated`, `proxyd.proxy.driver_direct`).
"""

from __future__ import annotations

from collections.abc import Callable

from proxyd.config.routes import ModelRoute
from proxyd.config.settings import Settings
from proxyd.errors import Overloaded
from proxyd.hooks.loader import HookSet
from proxyd.providers.base import CallTimeouts
from proxyd.proxy.active_call import ActiveCall, Finisher
from proxyd.proxy.learned_file import LearnedQuirkFile
from proxyd.telemetry.token_calibration import Calibration
from proxyd.transport.client import UpstreamClient

__all__ = ["CallResources", "Driver", "FinisherFor"]

#: Returns the `Finisher` of a call that is served by a route, or None.
FinisherFor = Callable[[ModelRoute, ActiveCall], Finisher | None]


def _no_finisher(route: ModelRoute, call: ActiveCall) -> None:
    return None


class CallResources:
    """What attempts need of the daemon: its configuration in force, and what it has learned.

    Args:
        demo_base: base URL of the embedded upstream, or None.
        finisher_for: returns the `Finisher` of a call that is served by a route, or None.
    """

    def __init__(
        self,
        settings: Settings,
        hooks: HookSet,
        upstreams: UpstreamClient,
        calibration: Calibration,
        learned: LearnedQuirkFile,
        demo_base: str | None = None,
        finisher_for: FinisherFor | None = None,
    ) -> None:
        self.settings = settings
        self.finisher_for: FinisherFor = finisher_for or _no_finisher
        self.hooks = hooks
        self.upstreams = upstreams
        self.calibration = calibration
        self.learned = learned
        self._demo_base = demo_base
        #: Routes whose upstream has reported tokens read from a cache or put there.
        self.caching_routes: set[str] = set()
        self._timeouts: dict[str, CallTimeouts] = {}  # by model_id

    def replace_configuration(self, settings: Settings, hooks: HookSet) -> None:
        self.settings, self.hooks = settings, hooks
        self._timeouts = {}

    def base_of(self, route: ModelRoute) -> str:
        """Return the base URL of `route`.

        Raises:
            Overloaded: the embedded upstream does not run.
        """
        if not route.is_demo:
            return route.api_base
        if self._demo_base is None:
            raise Overloaded("the embedded demo upstream is not running")
        return self._demo_base

    def timeouts_of(self, route: ModelRoute) -> CallTimeouts:
        timeouts = self._timeouts.get(route.model_id)
        if timeouts is None:

            def of(name: str) -> float:
                own = getattr(route.timeouts, name)
                return float(getattr(self.settings, name) if own is None else own)

            timeouts = CallTimeouts(of("connect_s"), of("first_byte_s"), of("idle_s"), of("total_s"))
            self._timeouts[route.model_id] = timeouts
        return timeouts


class Driver:
    """Base of both drivers."""

    def __init__(self, resources: CallResources) -> None:
        self._resources = resources

    @property
    def _settings(self) -> Settings:
        return self._resources.settings
