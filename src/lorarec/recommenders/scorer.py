"""The protocol of everything that scores candidates."""

from collections.abc import Callable

import numpy as np
import polars as pl

#: Scores cases (user_id, history, candidates; item ids) with one array of scores per case, higher is better.
#: A scorer may have an attribute `about`, one line for the report; it is read after scoring. One with a true attribute
#: `gives_places` returns the candidates' places in place of scores: 1 first, infinite for none.
Scorer = Callable[[pl.DataFrame], list[np.ndarray]]
