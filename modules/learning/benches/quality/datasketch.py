"""De-duplicates the texts of a JSON object as the benchmark does, with datasketch."""

import json
import re
import sys
import time

from datasketch import MinHash, MinHashLSH

given = json.load(sys.stdin)
texts, of = given["texts"], given["of"]
begun = time.process_time()


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))]


hashes = MinHash.bulk([shingles(text) for text in texts], num_perm=112)
lsh = MinHashLSH(num_perm=112, params=(14, 8))
for index, minhash in enumerate(hashes):
    lsh.insert(index, minhash)
copies = len(of)
first = len(texts) - copies
found = [hashes[index].jaccard(hashes[other]) >= 0.72 for copy, other in enumerate(of)
         for index in [first + copy] if other in lsh.query(hashes[index])]
print(json.dumps({"seconds": time.process_time() - begun, "found": sum(found)}))
