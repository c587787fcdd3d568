"""The build: what happens to scripts, to pages and to the finished site. `builder/order.py` says in which order."""

import gc
import os

# before anything imports torch: two scripts at once with two threads each on two cores take fifty times as long
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
gc.set_threshold(50_000)  # looking for garbage among all that torch holds took a tenth of a build
