"""Reactions of a first course in organic chemistry, with the origin of every atom of the product, as strings that a model reads.

A reaction is written in SMILES, reactants before >> and the product behind it. Under it stands a letter for each atom, in the
order of writing: the same letter on both sides says where an atom came from, and atoms that symmetry makes one share it; a dash
is an atom that the product does not hold. Molecules are written as RDKit writes them.
"""

import torch
from torch import Tensor

# --8<-- [start:reactions]
REACTIONS = {
    "ester": (
        "CO.O=C(O)c1ccccc1>>COC(=O)c1ccccc1",
        "ab dc-efghgf >> abcdefghgf",
    ),
    "Grignard": (
        "CC(=O)c1ccccc1.CC[Mg]Br>>CCC(C)(O)c1ccccc1",
        "dcefghihg ab-- >> abcdefghihg",
    ),
    "Claisen": (
        "C=CCOc1ccccc1>>C=CCc1ccccc1O",
        "cbahgdefed >> abcdefedgh",
    ),
# --8<-- [end:reactions]
    "ethyl ester": ("CC(=O)O.CCO>>CCOC(C)=O", "edf- abc >> abcdef"),
    "hydrolysis": ("CCOC(=O)c1ccccc1.O>>O=C(O)c1ccccc1", "---badefgfe c >> abcdefgfe"),
    "amide": ("CC(=O)Cl.Nc1ccccc1>>CC(=O)Nc1ccccc1", "abc- defghgf >> abcdefghgf"),
    "ether": ("CCBr.CCCO>>CCCOCC", "fe- abcd >> abcdef"),
    "Diels-Alder": ("C=CC(=O)OC.C=CC=C>>COC(=O)C1CC=CCC1", "hecdba fggf >> abcdefggfh"),
    "Wittig": (
        "C=P(c1ccccc1)(c1ccccc1)c1ccccc1.O=Cc1ccccc1>>C=Cc1ccccc1",
        "a------------------- -bcdefed >> abcdefed",
    ),
    "Suzuki": ("Fc1ccc(Br)cc1.OB(O)c1ccccc1>>Fc1ccc(-c2ccccc2)cc1", "abcde-dc ---fghihg >> abcdefghihgdc"),
    "reduction": ("CCC(C)=O.[BH4-].[Na+]>>CCC(C)O", "abcde - - >> abcde"),
    "oxidation": ("CCCCO>>CCCC=O", "abcde >> abcde"),
    "Friedel-Crafts": ("CC(=O)Cl.c1ccccc1>>CC(=O)c1ccccc1", "abc- dddddd >> abcdddddd"),
    "deprotection": ("CC(C)(C)OC(=O)NCc1ccccc1>>NCc1ccccc1", "-------abcdefed >> abcdefed"),
    "amination": ("CCN.O=Cc1ccccc1>>CCNCc1ccccc1", "abc -defghgf >> abcdefghgf"),
    "aldol": (
        "CC(=O)c1ccccc1.O=Cc1ccccc1>>O=C(C=Cc1ccccc1)c1ccccc1",
        "cbaijklkj -defghgf >> abcdefghgfijklkj",
    ),
    "Beckmann": ("O.ON=C1CCCCC1>>O=C1CCCCCN1", "a -hbcdedc >> abcdedch"),
    "bromination": ("BrBr.C=Cc1ccccc1>>BrCC(Br)c1ccccc1", "aa bcdefgfe >> abcadefgfe"),
    "substitution": (
        "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F",
        "abac ----- jihgfed- ---- - - >> abacdefghij",
    ),
}  # fmt: skip


# --8<-- [start:atoms]
def atoms(tokens: list[str]) -> tuple[Tensor, Tensor]:
    """Where the atoms of the reactants stand, and the product's."""
    arrow = tokens.index(">>")
    special = ("[CLS]", "[SEP]")
    found = torch.tensor([
        i for i, token in enumerate(tokens)
        if token.strip("[")[0].isalpha() and token not in special
    ])  # fmt: skip
    return found[found < arrow], found[found > arrow]


def origins(letters: str) -> Tensor:
    """(P, R): whether an atom of the product may be one of R."""
    left, right = letters.replace(" ", "").split(">>")
    return torch.tensor([[a == b for b in left] for a in right])
# --8<-- [end:atoms]
