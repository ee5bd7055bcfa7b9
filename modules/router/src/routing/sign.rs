//! Words that say something about the work that is asked for.

/// Meaning of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Proofs.
    Proof,
    /// Reasoning in several steps.
    Reasoning,
    /// Design of software, or of anything large.
    Design,
    /// A fault that is looked for.
    Fault,
    /// Code that is to be written.
    Code,
    /// Mathematics.
    Maths,
    /// Work on a text that is given, or a small operation.
    Easy,
    /// A question for a fact.
    Fact,
    /// Politeness.
    Greeting,
    /// A negation.
    Negation,
    /// A condition.
    Condition,
    /// All, some or none.
    Quantity,
    /// A comparison of quantities.
    Comparison,
    /// A rate or an average.
    Rate,
    /// A length of time.
    Time,
    /// A person.
    Person,
}

/// Number of signs.
pub(super) const SIGNS: usize = WORDS.len();

/// Words in lower case, by what they mean.
const WORDS: &[(Sign, &str)] = &[
    (
        Sign::Proof,
        "prove proof proofs theorem lemma corollary contradiction induction irrational \
         derive derivation axiom axioms bijection homomorphism isomorphic",
    ),
    (
        Sign::Reasoning,
        "analyze analyse analysis evaluate compare contrast critique reason reasoning \
         implications consequences tradeoff tradeoffs strategy strategic hypothesis \
         infer deduce justify argue thoroughly rigorous rigorously carefully puzzle \
         riddle why",
    ),
    (
        Sign::Design,
        "architecture architect design redesign refactor refactoring rearchitect \
         migrate migration scalable scalability distributed concurrency concurrent \
         consistency protocol optimize optimise optimization optimisation throughput \
         security vulnerability vulnerabilities exploit cryptographic lockfree",
    ),
    (
        Sign::Fault,
        "bug bugs debug debugging crash crashes crashed fix fixes broken failing fails \
         error errors exception traceback stacktrace segfault panic panicked deadlock \
         leak leaks regression flaky undefined",
    ),
    (
        Sign::Code,
        "implement function class algorithm code script method compile compiler \
         recursion recursive regex sql query endpoint unittest tests rust python \
         javascript typescript golang java kotlin async mutex struct enum trait \
         interface parser backend frontend",
    ),
    (
        Sign::Maths,
        "integral derivative equation equations polynomial matrix eigenvalue \
         eigenvalues probability calculate compute solve sqrt modulo prime primes \
         geometry triangle angle velocity percent limit logarithm combinatorics \
         variance",
    ),
    (
        Sign::Easy,
        "summarise summarize summary translate translation rephrase paraphrase \
         proofread spelling grammar shorten rename reformat format convert extract \
         classify label list title define definition synonym synonyms checkout branch \
         commit push pull typo typos capitalize uppercase lowercase sort show print \
         echo repeat sentiment keywords bullet tldr",
    ),
    (Sign::Fact, "who what what's when where which capital meaning mean means"),
    (Sign::Greeting, "hello hi hey thanks thank bye ok okay yes please greetings cheers"),
    (Sign::Negation, "not except never false least without"),
    (Sign::Condition, "if then unless suppose let given assume"),
    (Sign::Quantity, "all every each any none some both"),
    (
        Sign::Comparison,
        "more less than twice half times fewer total left remaining rest third double",
    ),
    (Sign::Rate, "percentage ratio average rate per interest"),
    (Sign::Time, "day days week weeks hour hours minute minutes year years month months"),
    (Sign::Person, "he she his her they their patient man woman"),
];

/// Places of the table of hashes: four times the words, so that nearly all lie at their own.
const PLACES: usize = 2048;

/// Sign at each place, and the hash of its word; 0 is a free place.
static TABLE: [(u64, u8); PLACES] = table();

/// Start of the hash of a word.
pub(super) const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Adds a byte to the hash of a word (FNV-1a).
pub(super) const fn hashed(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3)
}

/// Returns the number of the sign of the word with this hash.
pub(super) fn sign_of(hash: u64) -> Option<usize> {
    let mut place = place_of(hash);
    loop {
        let (word, sign) = TABLE[place];
        if word == hash {
            return Some(sign.into());
        }
        if word == 0 {
            return None;
        }
        place = (place + 1) % PLACES;
    }
}

const fn place_of(hash: u64) -> usize {
    ((hash ^ (hash >> 32)) as usize) % PLACES
}

const fn table() -> [(u64, u8); PLACES] {
    let mut table = [(0, 0); PLACES];
    let mut group = 0;
    while group < WORDS.len() {
        let (sign, words) = WORDS[group];
        let words = words.as_bytes();
        let mut hash = START;
        let mut at = 0;
        while at <= words.len() {
            if at == words.len() || words[at] == b' ' {
                let mut place = place_of(hash);
                while table[place].0 != 0 {
                    place = (place + 1) % PLACES;
                }
                table[place] = (hash, sign as u8);
                hash = START;
            } else {
                hash = hashed(hash, words[at]);
            }
            at += 1;
        }
        group += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_own_sign() {
        let hash = |word: &str| word.bytes().fold(START, hashed);
        let mut count = 0;
        for (sign, words) in WORDS {
            for word in words.split(' ') {
                assert_eq!(sign_of(hash(word)), Some(*sign as usize), "{word}");
                count += 1;
            }
        }
        assert_eq!(TABLE.iter().filter(|(hash, _)| *hash != 0).count(), count);
        assert!(count * 4 < PLACES, "{count}");
        assert_eq!(sign_of(hash("lorem")), None);
        let numbered = WORDS.iter().enumerate();
        assert!(numbered.into_iter().all(|(index, (sign, _))| *sign as usize == index));
    }
}
