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

CLASSIFIERS = {"faces": (kaomoji.train, 0), "sentences": (negation.train_reader, "ja", True)}  # {kind: a call}


def trained(kind):
    """The state of the classifier of "faces" or of "sentences", or what the layer of one of known_tasks' tasks is judged to do."""
    if kind in known_tasks.TASKS:
        return known_tasks.judge(kind, known_tasks.train(kind, 0))
    train, *given = CLASSIFIERS[kind]
    return train(*given)


def in_float32():
    """The reader of sentences again, as most would train it, half as long: its probabilities on the test part (N, 2)."""
    parts = negation.toy("ja")
    vocab = kaomoji.vocabulary(parts["train"])
    train, validation, test = (kaomoji.tensors(parts[part], vocab) for part in kaomoji.PARTS)
    torch.manual_seed(0)
    model = kaomoji.Classifier(len(vocab) + 2, 2, E=32, H=2, dropout=0.1, dtype=torch.float32)
    model.load_state_dict(kaomoji.fit(model, train, validation, 20, 0))
    with torch.no_grad():
        return model.eval()(test[0]).softmax(-1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    file, *kinds = sys.argv[1:]
    torch.save({kind: trained(kind) for kind in kinds} | {"in_float32": in_float32()}, file)
