"""Two builds of one commit are the same bytes."""

import hashlib
import shutil


def digests(small):
    site = small.path("site")
    return {
        path.relative_to(site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


def test_two_builds_are_the_same_bytes(small):
    """One in a process of its own, the other in a fork, which is how most tests build."""
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    built = []
    for own in ({"PYTHONHASHSEED": "7"}, {}):
        shutil.rmtree(small.path(".cache"))
        done = small.build(**epoch, **own)
        assert done.returncode == 0, done.said
        built.append(digests(small))
    assert built[0] == built[1]
    assert "2023-11-14" in small.read("site/en/reference/claims/index.html"), "what could differ is not in the site"
