"""Two builds of one commit are the same bytes."""

import re
import shutil
from datetime import UTC, datetime, timedelta


def test_two_builds_are_the_same_bytes(small):
    """The small project was built in a fork, as most tests build; now in a process of its own, on the same day by its clock."""
    built = small.digests()
    day = re.search(r"\d{4}-\d\d-\d\d", small.read("site/en/reference/claims/index.html"))[0]
    noon = datetime.fromisoformat(f"{day}T12:00+00:00")
    assert abs(noon - datetime.now(UTC)) < timedelta(days=2), "what could differ is not in the site"
    shutil.rmtree(small.path(".cache"))
    done = small.build(SOURCE_DATE_EPOCH=f"{noon.timestamp():.0f}", PYTHONHASHSEED="7")
    assert done.returncode == 0, done.said
    assert small.digests() == built
