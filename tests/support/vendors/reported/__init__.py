"""Refusals in the words of many servers, beside those of the profiles' simulators."""

from tests.support.vendors.reported import limits, messages, parameters, thinking, tools

__all__ = ["REPORTS"]

REPORTS = (
    *parameters.REPORTS,
    *thinking.REPORTS,
    *tools.REPORTS,
    *messages.REPORTS,
    *limits.REPORTS,
)
