"""running_example.py: five words that many pages read; what the pages say of them holds, and a layer of PyTorch agrees."""

import running_example as example
import torch
from running_example import TOKENS, W_K, W_O, W_Q, W_V, D, E, H, L, X

black, cat, _, white, dog = range(5)


def heads():
    """A (H, L, L) and heads (H, L, D), by the paper's formula."""
    A = ((X @ W_Q) @ (X @ W_K).mT / D**0.5).softmax(-1)
    return A, A @ (X @ W_V)


def test_shapes_and_sizes_that_all_differ():
    assert len({L, E, H, D}) == 4
    assert X.shape == (L, E)
    assert W_Q.shape == W_K.shape == W_V.shape == (H, E, D)
    assert W_O.shape == (H * D, E)
    assert (len(TOKENS), len(example.COLUMNS)) == (L, E)


def test_words_and_places_have_columns_of_their_own():
    assert not example.words[:, 4:].any()
    assert not example.places[:, :4].any()
    torch.testing.assert_close(example.places.norm(dim=-1), torch.ones(L, dtype=X.dtype))


def test_each_head_finds_what_it_asks_for():
    A, _ = heads()
    for head, rows in enumerate([{cat: black, dog: white}, {cat: dog, dog: cat}]):
        for query, key in rows.items():
            assert A[head, query].argmax() == key
            assert A[head, query, key] > 0.8


def test_without_places_a_noun_cannot_tell_two_adjectives_apart():
    A = ((example.words @ W_Q[0]) @ (example.words @ W_K[0]).mT / D**0.5).softmax(-1)
    torch.testing.assert_close(A[cat, black], A[cat, white])
    torch.testing.assert_close(A[cat], A[dog])


def test_it_is_a_layer_of_pytorch():
    layer = torch.nn.MultiheadAttention(E, H, bias=False, batch_first=True, dtype=X.dtype)
    layer.in_proj_weight.data = torch.cat([W.mT.flatten(0, 1) for W in (W_Q, W_K, W_V)])
    layer.out_proj.weight.data = W_O.T
    output, weights = layer(X, X, X, average_attn_weights=False)
    A, head = heads()
    torch.testing.assert_close(weights, A)
    torch.testing.assert_close(output, head.transpose(0, 1).flatten(1) @ W_O)
