"""TF-IDF vectors of titles."""

from collections.abc import Sequence

from scipy.sparse import csr_matrix


def title_vectors(titles: Sequence[str]) -> csr_matrix:
    """(titles, words) rows of unit length; one column of zeros when no title holds a word.

    scikit-learn's defaults: words of two and more characters, smooth idf.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds to load

    try:
        return TfidfVectorizer().fit_transform(titles).tocsr()
    except ValueError:  # "empty vocabulary": titles of single characters
        return csr_matrix((len(titles), 1))
