"""atlas.py: where the heads of a declared layout lie."""

import pytest
import torch
from atlas import layouts, places, shapes_of
from convert import to_paper

E, H, K, D = 24, 4, 2, 6


@pytest.mark.parametrize("name", layouts())
def test_places_are_where_to_paper_finds_the_heads(name):
    """Every weight of every layout: the block that `places` names holds the head's matrix, and no two overlap."""
    layout = layouts()[name]
    groups_of_keys = K if layout.grouped else H
    state = {}
    for tensor, part in layout.tensors.items():
        n = sum(groups_of_keys if role in "kv" else H for role in part.roles)
        letters = part.axes.replace("(n d)", "N").split()
        state[tensor] = torch.randn([{"N": n * D, "n": n, "e": E, "d": D}[letter] for letter in letters])
    assert shapes_of(layout, E, H, groups_of_keys, D) == {tensor: tuple(t.shape) for tensor, t in state.items()}
    paper = to_paper(state, layout, H, groups_of_keys)
    for tensor, part in layout.tensors.items():
        if "e" not in part.axes or part.axes == "e":
            with pytest.raises(ValueError, match="name: expected a weight with heads"):
                places(layout, tensor, state[tensor].shape, H, groups_of_keys)
            continue
        found = places(layout, tensor, state[tensor].shape, H, groups_of_keys)
        axis = 1 if part.axes.startswith("e") else 0
        matrix = state[tensor].flatten(axis, axis + 1) if state[tensor].dim() == 3 else state[tensor]
        covered = 0
        for block in found:
            first, end = block["columns" if axis else "rows"]
            assert first == covered
            covered = end
            cut = matrix[:, first:end] if axis else matrix[first:end]
            head = getattr(paper, f"W_{block['role']}")[block["head"]]
            assert torch.equal(cut, head) or torch.equal(cut, head.T), (tensor, block)
        assert covered == matrix.shape[axis]
    with pytest.raises(ValueError, match="heads of one width"):
        places(layouts()["torch"], "in_proj_weight", (3 * E + 1, E), H)
