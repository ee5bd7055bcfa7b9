//! The kinds of secrets that are known by what they look like.

use std::sync::OnceLock;

use regex::Regex;

/// One kind of secret.
pub(super) struct Kind {
    /// Marks of which each of its secrets has one, whatever the case.
    pub(super) marks: &'static [&'static str],
    pattern: &'static str,
    /// `true` when words could look alike: then a secret must look like nothing that a person would
    /// write.
    pub(super) ambiguous: bool,
    /// `true` when it is a secret by where it stands, whatever it looks like.
    pub(super) is_placed: bool,
    compiled: OnceLock<Regex>,
}

impl Kind {
    const fn new(marks: &'static [&'static str], pattern: &'static str) -> Self {
        Self { marks, pattern, ambiguous: false, is_placed: false, compiled: OnceLock::new() }
    }

    const fn ambiguous(marks: &'static [&'static str], pattern: &'static str) -> Self {
        let mut kind = Self::new(marks, pattern);
        kind.ambiguous = true;
        kind
    }

    const fn placed(marks: &'static [&'static str], pattern: &'static str) -> Self {
        let mut kind = Self::new(marks, pattern);
        kind.is_placed = true;
        kind
    }

    /// Returns the pattern; the group `s` is the secret. It is compiled when it is first needed.
    pub(super) fn regex(&self) -> &Regex {
        self.compiled.get_or_init(|| Regex::new(self.pattern).expect("the patterns are tested"))
    }
}

/// A secret that begins with one of some words and goes on with random characters.
macro_rules! prefixed {
    ($body:literal, $first:literal $(, $other:literal)*) => {
        Kind::new(
            &[$first $(, $other)*],
            concat!("(?:^|[^A-Za-z0-9])(?<s>(?:", $first $(, "|", $other)*, ")", $body, ")"),
        )
    };
}

/// A secret as of `prefixed`, whose beginning is short and which may have dashes within, so that
/// names that people give could begin and go on like it (`pa-1234-new-flow`).
macro_rules! doubtful {
    ($body:literal, $first:literal $(, $other:literal)*) => {
        Kind::ambiguous(
            &[$first $(, $other)*],
            concat!("(?:^|[^A-Za-z0-9])(?<s>(?:", $first $(, "|", $other)*, ")", $body, ")"),
        )
    };
}

/// Every kind, the more exact ones first.
pub(super) static KINDS: [Kind; 79] = [
    // Keys that stand over several lines: PEM, PGP, PuTTY, age.
    Kind::new(
        &["private key"],
        concat!(
            r"(?<s>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
            r"(?:[\s\S]*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\:,-]*))"
        ),
    ),
    Kind::new(&["private-lines"], r"Private-Lines: [0-9]+(?<s>[A-Za-z0-9+/=\s\\]+)"),
    prefixed!("[A-Za-z0-9]{50,}", "AGE-SECRET-KEY-1"),
    // URLs with a password or a token, addresses that are a secret themselves.
    Kind::placed(&["://"], r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@"']*:(?<s>[^\s@/"']+)@"#),
    Kind::ambiguous(&["://"], r#"[A-Za-z][A-Za-z0-9+.-]*://(?<s>[^\s:/@"']{16,})@"#),
    Kind::new(
        &["hooks.slack.com/"],
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?<s>[A-Za-z0-9/_-]{20,})",
    ),
    Kind::new(
        &["/api/webhooks/"],
        r"discord(?:app)?\.com/api/webhooks/[0-9]+/(?<s>[A-Za-z0-9_-]{20,})",
    ),
    Kind::new(
        &["webhook.office.com/"],
        r"webhook\.office\.com/webhookb2/(?<s>[A-Za-z0-9@/_-]{20,})",
    ),
    Kind::placed(
        &["key=", "token=", "sig=", "signature="],
        r#"(?i)[?&](?:[a-z0-9]+[-_])*(?:key|token|sig|signature)=(?<s>[^\s&"'#\\]{8,})"#,
    ),
    // JSON web tokens.
    Kind::new(&["eyj"], r"(?<s>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,3})"),
    // Language models: Anthropic, OpenAI, OpenRouter, DeepSeek, Langfuse and others that say `sk`.
    prefixed!(
        "[A-Za-z0-9_-]{16,}",
        "sk-ant-",
        "sk-proj-",
        "sk-svcacct-",
        "sk-admin-",
        "sk-or-",
        "sk-lf-",
        "sk-helicone-"
    ),
    prefixed!(
        "[A-Za-z0-9]{16,}",
        "sk_live_",
        "sk_test_",
        "rk_live_",
        "rk_test_",
        "pk_live_",
        "pk_test_"
    ),
    Kind::ambiguous(&["sk-", "sk_"], r"(?:^|[^A-Za-z0-9])(?<s>sk[-_][A-Za-z0-9_-]{16,})"),
    prefixed!(
        "[A-Za-z0-9]{20,}",
        "xai-",
        "gsk_",
        "hf_",
        "api_org_",
        "pplx-",
        "csk-",
        "fw_",
        "crsr_",
        "llx-",
        "wandb_v1_"
    ),
    prefixed!("[A-Za-z0-9_-]{20,}", "nvapi-", "tgp_v1_"),
    doubtful!("[A-Za-z0-9_-]{20,}", "jina_", "tvly-", "pcsk_", "lsv2_"),
    prefixed!("[A-Za-z0-9]{20,}", "r8_", "e2b_", "fc-", "voyage-key-", "bce-v3/ALTAK-"),
    prefixed!("[A-Za-z0-9+/=_-]{30,}", "bedrock-api-key-"),
    doubtful!("[A-Za-z0-9+/=_-]{30,}", "ABSK"),
    doubtful!("[A-Za-z0-9_-]{40,}", "pa-"),
    prefixed!("[A-Za-z0-9:]{20,}", "AstraCS:"),
    // Code hosts and package registries.
    prefixed!("[A-Za-z0-9]{20,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    prefixed!("[A-Za-z0-9_]{20,}", "github_pat_"),
    prefixed!(
        "[A-Za-z0-9_.-]{16,}",
        "glpat-",
        "glptt-",
        "glcbt-",
        "gloas-",
        "glsoat-",
        "glimt-",
        "glagent-"
    ),
    doubtful!("[A-Za-z0-9_.-]{16,}", "gldt-", "glrt-", "glft-"),
    prefixed!("[A-Za-z0-9_=-]{20,}", "ATATT3", "ATCTT3"),
    doubtful!("[A-Za-z0-9_=-]{20,}", "ATBB"),
    prefixed!("[A-Za-z0-9]{30,}", "npm_"),
    prefixed!("[A-Za-z0-9_-]{16,}", "pypi-AgEI"),
    prefixed!("[A-Za-z0-9]{32,}", "rubygems_", "CLOJARS_", "cio"),
    prefixed!("[A-Za-z0-9_-]{20,}", "dckr_pat_", "dckr_oat_"),
    doubtful!("[A-Za-z0-9_-]{20,}", "bkua_", "sgp_", "sgd_"),
    // Clouds.
    Kind::new(
        &["akia", "asia", "abia", "acca"],
        r"(?:^|[^A-Za-z0-9])(?<s>(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})(?-u:\b)",
    ),
    doubtful!("[A-Za-z0-9_-]{30,}", "AIza"),
    Kind::ambiguous(&["aq.ab"], r"(?:^|[^A-Za-z0-9])(?<s>AQ\.Ab[A-Za-z0-9_-]{30,})"),
    prefixed!("[A-Za-z0-9+/=%_-]{40,}", "IQoJb3JpZ2lu", "FwoGZXIvYXdz"),
    Kind::ambiguous(&["ya29."], r"(?<s>ya29\.[A-Za-z0-9_-]{20,})"),
    prefixed!("[A-Za-z0-9_-]{20,}", "GOCSPX-"),
    Kind::ambiguous(&["1//0"], r"(?:^|[^A-Za-z0-9])(?<s>1//0[A-Za-z0-9_-]{30,})"),
    Kind::new(&["jqqj99"], r"(?<s>[A-Za-z0-9]{30,}JQQJ99[A-Za-z0-9]{20,})"),
    Kind::new(&["q~"], r"(?:^|[^A-Za-z0-9])(?<s>[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})"),
    prefixed!("[A-Za-z0-9]{12,30}", "LTAI"),
    prefixed!("[A-Za-z0-9]{32}", "AKID"),
    prefixed!("[a-f0-9]{60,}", "dop_v1_", "doo_v1_", "dor_v1_"),
    doubtful!("[A-Za-z0-9+/=_-]{30,}", "fm1r_", "fm2_", "fo1_"),
    doubtful!("[A-Za-z0-9-]{20,}", "HRKU-", "nfp_", "vcp_", "vck_", "rnd_"),
    prefixed!("[A-Za-z0-9_-]{20,}", "sb_secret_", "pscale_tkn_", "pscale_pw_"),
    doubtful!("[A-Za-z0-9_-]{20,}", "sbp_"),
    // Infrastructure and what watches it.
    Kind::ambiguous(
        &["hvs.", "hvb.", "hvr."],
        r"(?:^|[^A-Za-z0-9])(?<s>hv[sbr]\.[A-Za-z0-9_-]{20,})",
    ),
    Kind::new(&[".atlasv1."], r"(?<s>[A-Za-z0-9]{10,}\.atlasv1\.[A-Za-z0-9_=-]{40,})"),
    Kind::new(
        &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa."],
        r"(?:^|[^A-Za-z0-9])(?<s>dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9._-]{30,})",
    ),
    prefixed!("[a-f0-9]{32,}", "dapi", "pul-"),
    prefixed!("[A-Za-z0-9-]{20,}", "tskey-"),
    prefixed!("[A-Za-z0-9_=+/-]{20,}", "sntrys_", "sntryu_"),
    doubtful!("[A-Za-z0-9_=+/-]{20,}", "glc_", "glsa_", "phc_", "phx_"),
    doubtful!("[A-Za-z0-9-]{20,}", "NRAK-", "NRJS-", "NRII-", "PMAK-"),
    prefixed!("[A-Za-z0-9_=+/-]{30,}", "ops_eyJ"),
    prefixed!("[A-Z][A-Za-z0-9]{40,}", "EAA"),
    prefixed!("[A-Za-z0-9%]{50,}", "AAAAAAAAAAAAAAAAAAAA"),
    // Messages and mail.
    doubtful!(
        "[A-Za-z0-9.-]{10,}",
        "xoxa-",
        "xoxb-",
        "xoxp-",
        "xoxr-",
        "xoxs-",
        "xoxc-",
        "xoxd-",
        "xapp-",
        "xoxe-"
    ),
    Kind::ambiguous(&["xoxe."], r"(?:^|[^A-Za-z0-9])(?<s>xoxe\.[A-Za-z0-9.-]{20,})"),
    Kind::new(
        &[".g", ".x", ".y"],
        concat!(
            r"(?:^|[^A-Za-z0-9])(?<s>[MNO][A-Za-z0-9_-]{23,27}\.[GXY][A-Za-z0-9_-]{5}",
            r"\.[A-Za-z0-9_-]{27,})"
        ),
    ),
    Kind::new(&[":aa"], r"(?:^|[^A-Za-z0-9])(?<s>[0-9]{8,10}:AA[A-Za-z0-9_-]{32,})"),
    Kind::ambiguous(
        &["sg."],
        r"(?:^|[^A-Za-z0-9])(?<s>SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})",
    ),
    Kind::new(
        &[
            "sk0", "sk1", "sk2", "sk3", "sk4", "sk5", "sk6", "sk7", "sk8", "sk9", "ska", "skb",
            "skc", "skd", "ske", "skf",
        ],
        r"(?:^|[^A-Za-z0-9])(?<s>SK[0-9a-f]{32})(?-u:\b)",
    ),
    Kind::new(&["key-"], r"(?:^|[^A-Za-z0-9])(?<s>key-[0-9a-f]{32})(?-u:\b)"),
    Kind::new(&["-us"], r"(?:^|[^A-Za-z0-9])(?<s>[0-9a-f]{32}-us[0-9]{1,2})(?-u:\b)"),
    // Money and shops.
    prefixed!("[A-Za-z0-9]{20,}", "whsec_"),
    prefixed!("[A-Za-z0-9_-]{20,}", "sq0atp-", "sq0csp-", "GR1348941"),
    prefixed!("[a-fA-F0-9]{30,}", "shpat_", "shpca_", "shppa_", "shpss_"),
    // What people work with.
    prefixed!("[A-Za-z0-9_-]{20,}", "lin_api_", "lin_oauth_", "CFPAT-"),
    doubtful!("[A-Za-z0-9_-]{20,}", "ntn_", "figd_"),
    prefixed!("[A-Za-z0-9]{40,}", "secret_"),
    Kind::new(&["pat"], r"(?:^|[^A-Za-z0-9])(?<s>pat[A-Za-z0-9]{14}\.[0-9a-f]{60,})"),
    Kind::ambiguous(&["sl."], r"(?:^|[^A-Za-z0-9])(?<s>sl\.(?:u\.|B)[A-Za-z0-9_-]{30,})"),
    // Headers, and values that are named.
    Kind::ambiguous(&["bearer"], r"(?i)bearer(?:\s|%20)+(?<s>[A-Za-z0-9._~+/=-]{8,})"),
    Kind::ambiguous(&["basic"], r"(?i)basic(?:\s|%20)+(?<s>[A-Za-z0-9+/=]{12,})"),
    Kind::placed(
        &["authorization"],
        concat!(
            r#"(?i)authorization[\\"']*\s*[:=]\s*[\\"']*(?:basic|bearer|token|apikey)\s+"#,
            r#"(?<s>[^\s"',;&\\]{6,})"#
        ),
    ),
    Kind::placed(
        &[
            "apikey",
            "api_key",
            "api-key",
            "accesskey",
            "access_key",
            "access-key",
            "accountkey",
            "account_key",
            "account-key",
            "secretkey",
            "secret_key",
            "secret-key",
            "accesstoken",
            "access_token",
            "access-token",
            "authtoken",
            "auth_token",
            "auth-token",
            "refreshtoken",
            "refresh_token",
            "refresh-token",
            "sessiontoken",
            "session_token",
            "session-token",
            "secret",
            "password",
            "passwd",
            "passphrase",
        ],
        concat!(
            r"(?i)(?:(?:api|access|account|secret)[-_]?key",
            r"|(?:access|auth|refresh|session)[-_]?token",
            r#"|secret|password|passwd|passphrase)[\\"']*\s*[:=]\s*[\\"']*"#,
            r#"(?<s>[^\s"',;&\\]{6,})"#
        ),
    ),
];

/// Returns whether a member of an object with this name holds a secret.
pub(super) fn names_secret(name: &str) -> bool {
    static NAMES: OnceLock<Regex> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let words = concat!(
            r"(?i)(?:^|[-_])(?:(?:api|access|account|secret)[-_]?key",
            r"|(?:access|auth|refresh|session)[-_]?token|secret|password|passwd|passphrase",
            r"|authorization)$"
        );
        Regex::new(words).expect("the pattern is tested")
    });
    names.is_match(name)
}

/// Returns whether a text says where a secret is, `${NAME}` or `file:/PATH`, and not what it is.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("file:") {
        return path.starts_with(['/', '~']);
    }
    let parts = text.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    parts.is_some_and(|(name, rest)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty() && name.bytes().all(is_name) && rest.len() < super::LEAST
    })
}

/// Checks whether a text holds letters and digits as chance mixes them, and no word or name does.
#[must_use]
pub fn looks_random(text: &str) -> bool {
    let runs = || text.split(|c: char| !c.is_ascii_alphanumeric());
    if runs().any(is_random) {
        return true;
    }
    // A dash or an underscore may stand within: then the pieces tell together.
    let (mut length, mut turns) = (0, 0);
    for piece in runs().filter(|run| run.len() >= 6) {
        length += piece.len();
        turns += turns_of(piece);
    }
    turns >= 4 && 3 * turns >= length
}

fn is_random(run: &str) -> bool {
    let count = |test: fn(&u8) -> bool| run.bytes().skip(1).filter(test).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    // `AddNewPaymentFlow`: few letters begin a word.
    let is_camel = digits == 0 && lower > 0 && 7 * upper <= 2 * run.len();
    let is_mixed = digits > 0 && upper + lower > 0 || upper > 0 && lower > 0 && !is_camel;
    run.len() >= 12 && is_mixed || run.len() >= 24 && (upper == 0 || !is_camel)
}

/// Counts how often a digit follows a letter or a letter a digit, or a capital a small letter.
fn turns_of(run: &str) -> usize {
    let kind = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let turn = |pair: &&[u8]| {
        let begins_word = pair[0].is_ascii_uppercase() && pair[1].is_ascii_lowercase();
        kind(&pair[0]) != kind(&pair[1]) && !begins_word
    };
    run.as_bytes().windows(2).filter(turn).count()
}
