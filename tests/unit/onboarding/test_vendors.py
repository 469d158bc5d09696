"""The table of vendors that ``add`` offers."""

from __future__ import annotations

import pytest

from proxyd.codecs.formats import CHAT
from proxyd.onboarding.vendors import LOCAL_SERVERS, NEEDS_ADDRESS, VENDORS, Vendor, find_vendor
from proxyd.providers.registry import PROFILES, profile_for
from proxyd.providers.route_warnings import fault_in_address


def test_every_profile_is_offered() -> None:
    offered = [each.profile for each in (*VENDORS, *NEEDS_ADDRESS)] + [each.profile for each in LOCAL_SERVERS]
    assert sorted([*offered, "generic"]) == sorted(PROFILES)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_an_address_is_of_its_profile_and_speaks_what_is_said(vendor: Vendor) -> None:
    assert profile_for(vendor.api_base, None).name == vendor.profile
    assert fault_in_address(vendor.api_base, direct=vendor.direct, chosen=vendor.format or CHAT.name) is None
    assert vendor.models_url.startswith("https://")
    assert vendor.key_env.isupper()


def test_names_differ_and_are_found_in_any_case() -> None:
    names = [name for each in (*VENDORS, *NEEDS_ADDRESS) for name in {each.name, each.profile, *each.also}]
    assert len(names) == len(set(names))
    assert find_vendor(" Kimi ") is find_vendor("moonshot")
    assert find_vendor("nobody") is None
