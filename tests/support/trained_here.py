"""Train one model of each kind with this processor, and write what came out: `python tests/support/trained_here.py FILE KIND …`.

test_processors.py runs it under other instruction sets and compares. Only the data may come from a cache, no model.
"""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1")  # before torch is imported

import kaomoji
import known_tasks
import negation
import torch


def faces(seed=0):
    """The classifier of faces: its state."""
    return kaomoji.train(seed)


def sentences(language="ja"):
    """The reader of sentences with a negation: its state."""
    return negation.train_reader(language, True)


def tasks(seed=0):
    """{task: what its layer is judged to do}, some tasks, each from one seed."""
    return {
        task: known_tasks.judge(task, known_tasks.train(task, seed))
        for task in ("reverse", "first match", "plain copy")
    }


def in_float32(language="ja"):
    """The reader of sentences again, as most would train it: its probabilities on the test part (N, 2)."""
    parts = negation.toy(language)
    vocab = kaomoji.vocabulary(parts["train"])
    train, validation, test = (kaomoji.tensors(parts[part], vocab) for part in kaomoji.PARTS)
    torch.manual_seed(0)
    model = kaomoji.Classifier(len(vocab) + 2, 2, E=32, H=2, dropout=0.1, dtype=torch.float32)
    model.load_state_dict(kaomoji.fit(model, train, validation, 40, 0))
    with torch.no_grad():
        return model.eval()(test[0]).softmax(-1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    file, *kinds = sys.argv[1:]
    torch.save({kind: globals()[kind]() for kind in kinds}, file)
