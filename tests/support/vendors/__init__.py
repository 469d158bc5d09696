"""What vendors refuse: one strict simulator for each profile, as data.

::

    engine        a `Vendor` is a list of named `Rule`s, each with its source; `Vendor.refusal` is a pure function
    schemas       rules on the schemas of tools
    messages      rules on the order and the contents of messages
    parameters    rules on everything else in the body
    shared        rules of several vendors
    openai_family, hosted, hosted_china, local
                  the vendors
    server        a simulator behind a socket

The simulators share no code with the translation that they judge. Where a vendor's behaviour differs between builds or
accounts, the strictest that was reported is simulated. A rule whose source is a page of documentation has words of our
own, in the vendor's manner; where the source is a report, they are the report's.
"""

from tests.support.vendors.engine import Refusal, Rule, Vendor
from tests.support.vendors.hosted import HOSTED
from tests.support.vendors.hosted_china import HOSTED_CHINA
from tests.support.vendors.local import LOCAL
from tests.support.vendors.openai_family import OPENAI_FAMILY

__all__ = ["VENDORS", "Refusal", "Rule", "Vendor"]

#: Every simulator by the name of the profile that it stands for.
VENDORS: dict[str, Vendor] = {
    vendor.name: vendor for vendor in (*OPENAI_FAMILY, *HOSTED_CHINA, *HOSTED, *LOCAL)
}
