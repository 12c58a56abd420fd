"""Text as sparse vectors: BM25's term weights, computed here, finished by the index's IDF.

The English setting of the engine's own `Bm25` (words, Snowball stems, stopwords; k 1.2,
b 0.75) is kept as it is: ASCII text gives the very same tokens. Two things are done to the
text beforehand, because the engine's word tokenizer takes a run of Chinese for one word:

- NFKC, so that PDF ligatures, full-width forms and decomposed accents meet what people type;
  accents themselves are folded by the engine ("Größe" is found by "grosse");
- scripts that put no spaces between words become overlapping pairs of characters, as in
  Lucene's CJKAnalyzer. A document keeps its single characters too, for one-character queries.

The engine's multilingual tokenizer was tried: it cuts the same Japanese word differently in a
query and in a sentence, so that the one doesn't find the other, and it changes English tokens.
"""

import re
import unicodedata

from qdrant_edge import Bm25, Bm25Config, SparseVector

_BM25 = Bm25(Bm25Config(language="english", ascii_folding=True))

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005\u3040-\u30ff\u31f0-\u31ff"  # kana, and the iteration mark of kanji
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul: spaced, but with its particles attached
    "]+"
)


def document_weights(text: str) -> SparseVector:
    """Weigh the terms of a document. Empty where it has none."""
    return _BM25.embed_document(_spaced(text, singles=True))


def query_weights(text: str) -> SparseVector | None:
    """Weigh the terms of a query, each once; null where it has none (empty, only stopwords)."""
    weights = _BM25.embed_query(_spaced(text, singles=False))
    return weights if weights.indices else None


def _spaced(text: str, *, singles: bool) -> str:
    # A model's tool arguments may hold lone surrogates, which the engine can't take.
    encodable = text.encode(errors="replace").decode()

    def pairs(run: re.Match[str]) -> str:
        # Vowel signs and tone marks would cut words where they stand.
        letters = "".join(filter(str.isalnum, run[0]))
        grams = [letters[i : i + 2] for i in range(len(letters) - 1)]
        if singles or not grams:
            grams.extend(letters)
        return f" {' '.join(grams)} "

    return _UNSPACED.sub(pairs, unicodedata.normalize("NFKC", encodable))
