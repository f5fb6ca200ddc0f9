"""TF-IDF vectors of titles."""

from collections.abc import Sequence
from functools import lru_cache

from scipy.sparse import csr_matrix


def title_vectors(titles: Sequence[str]) -> csr_matrix:
    """Return the TF-IDF vectors of titles, (titles, words), with rows of unit length.

    The settings are scikit-learn's defaults: words of two or more characters, smooth idf. If no title contains a word,
    there is one column of zeros. The vectors of the last catalogue are kept and returned again, so they must not be
    changed.
    """
    return _title_vectors(tuple(titles))


@lru_cache(maxsize=1)  # evidence, a fusion and TF-IDF read the vectors of the same catalogue
def _title_vectors(titles: tuple[str, ...]) -> csr_matrix:
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds to load

    try:
        return TfidfVectorizer().fit_transform(titles).tocsr()
    except ValueError:  # "empty vocabulary": titles of single characters
        return csr_matrix((len(titles), 1))
