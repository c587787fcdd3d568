"""Five words as numbers small enough to check by hand, and two heads that read them: "black cat and white dog".

    from running_example import X, W_Q, W_K, W_V, W_O

Nothing here is trained. The numbers are chosen, so that one can see what each is for; a model finds its own in training.
In head 0 a noun asks for the adjective just before it, in head 1 for the other noun.
Letters: L words, E numbers a word, H heads, D = E // H. TOKENS are for figures, and pages say them in their own language.
PyTorch 2.13.
"""

import torch

L, E, H, D = 5, 6, 2, 3
TOKENS = ["black", "cat", "and", "white", "dog"]
COLUMNS = ["adjective", "noun", "colour", "animal", "place →", "place ↑"]

# --8<-- [start:words]
# adjective, noun, colour, animal, and room for the place
words = torch.tensor(
    [
        [1, 0, -1, 0, 0, 0],  # word 0
        [0, 1, 0, -1, 0, 0],  # word 1
        [0, 0, 0, 0, 0, 0],  # word 2
        [1, 0, 1, 0, 0, 0],  # word 3
        [0, 1, 0, 1, 0, 0],  # word 4
    ]
).double()
# --8<-- [end:words]

# --8<-- [start:places]
# five points on half a circle, one for each place
r = 0.5**0.5
points = [[1, 0], [r, r], [0, 1], [-r, r], [-1, 0]]
places = torch.zeros(5, 6).double()
places[:, 4:] = torch.tensor(points, dtype=torch.float64)
X = words + places
# --8<-- [end:places]

# --8<-- [start:matrices]
adjective, noun, colour, animal = range(4)
# (H, E, D): row = what a word is, column = what is made of it
W_Q, W_K, W_V = torch.zeros(3, 2, 6, 3).double()
# head 0: a noun asks, an adjective answers
W_Q[0, noun, 0] = W_K[0, adjective, 0] = 2
# head 1: a noun asks, a noun answers
W_Q[1, noun, 0] = W_K[1, noun, 0] = 2
# a query's place is turned: one step back, or right round
W_Q[0, 4:, 1:] = torch.tensor([[1, -1], [1, 1]])
W_Q[1, 4:, 1:] = torch.tensor([[-2, 0], [0, -2]])
W_K[:, 4:, 1:] = torch.tensor([[2, 0], [0, 2]])
# what is handed on: the kind, and the colour or the animal
W_V[:, adjective, 0] = W_V[:, noun, 1] = 1
W_V[0, colour, 2] = W_V[1, animal, 2] = 1
# (H D, E): the colour and the animal, back into their columns
W_O = torch.zeros(6, 6).double()
W_O[2, colour] = W_O[5, animal] = 1
# --8<-- [end:matrices]
