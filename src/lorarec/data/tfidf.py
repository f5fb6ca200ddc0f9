"""TF-IDF vectors of titles."""

from collections.abc import Sequence

from scipy.sparse import csr_matrix


def title_vectors(titles: Sequence[str]) -> csr_matrix:
    """Return the TF-IDF vectors of titles, (titles, words), with rows of unit length.

    The settings are scikit-learn's defaults: words of two or more characters, smooth idf. If no title contains a word,
    there is one column of zeros.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds to load

    try:
        return TfidfVectorizer().fit_transform(titles).tocsr()
    except ValueError:  # "empty vocabulary": titles of single characters
        return csr_matrix((len(titles), 1))
