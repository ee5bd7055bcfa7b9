//! The kinds of secrets that are known by what they look like.

use std::sync::OnceLock;

use regex::Regex;

/// One kind of secret.
pub(super) struct Kind {
    /// One of these stands in each of its secrets, whatever the case.
    pub(super) marks: &'static [&'static str],
    pattern: &'static str,
    /// Whether words could look alike: then it must look like nothing that a person would write.
    pub(super) ambiguous: bool,
    compiled: OnceLock<Regex>,
}

impl Kind {
    const fn new(marks: &'static [&'static str], pattern: &'static str) -> Self {
        Self { marks, pattern, ambiguous: false, compiled: OnceLock::new() }
    }

    const fn ambiguous(marks: &'static [&'static str], pattern: &'static str) -> Self {
        Self { marks, pattern, ambiguous: true, compiled: OnceLock::new() }
    }

    /// Its pattern; the group `s` is the secret. Most are never needed.
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

/// Every kind, the more exact ones first.
pub(super) static KINDS: [Kind; 71] = [
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
    Kind::new(&["://"], r#"[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@"']*:(?<s>[^\s@/"']+)@"#),
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
    Kind::new(
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
    prefixed!("[A-Za-z0-9_-]{20,}", "nvapi-", "tgp_v1_", "jina_", "tvly-", "pcsk_", "lsv2_"),
    prefixed!("[A-Za-z0-9]{20,}", "r8_", "e2b_", "fc-", "voyage-key-", "bce-v3/ALTAK-"),
    prefixed!("[A-Za-z0-9+/=_-]{30,}", "ABSK", "bedrock-api-key-"),
    prefixed!("[A-Za-z0-9_-]{40,}", "pa-"),
    prefixed!("[A-Za-z0-9:]{20,}", "AstraCS:"),
    // Code hosts and package registries.
    prefixed!("[A-Za-z0-9]{20,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    prefixed!("[A-Za-z0-9_]{20,}", "github_pat_"),
    prefixed!(
        "[A-Za-z0-9_.-]{16,}",
        "glpat-",
        "glptt-",
        "gldt-",
        "glrt-",
        "glcbt-",
        "glft-",
        "gloas-",
        "glsoat-",
        "glimt-",
        "glagent-"
    ),
    prefixed!("[A-Za-z0-9_=-]{20,}", "ATATT3", "ATCTT3", "ATBB"),
    prefixed!("[A-Za-z0-9]{30,}", "npm_"),
    prefixed!("[A-Za-z0-9_-]{16,}", "pypi-AgEI"),
    prefixed!("[A-Za-z0-9]{32,}", "rubygems_", "CLOJARS_", "cio"),
    prefixed!("[A-Za-z0-9_-]{20,}", "dckr_pat_", "dckr_oat_", "bkua_", "sgp_", "sgd_"),
    // Clouds.
    Kind::new(
        &["akia", "asia", "abia", "acca"],
        r"(?:^|[^A-Za-z0-9])(?<s>(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})(?-u:\b)",
    ),
    prefixed!("[A-Za-z0-9_-]{30,}", "AIza"),
    Kind::new(&["aq.ab"], r"(?:^|[^A-Za-z0-9])(?<s>AQ\.Ab[A-Za-z0-9_-]{30,})"),
    prefixed!("[A-Za-z0-9+/=%_-]{40,}", "IQoJb3JpZ2lu", "FwoGZXIvYXdz"),
    Kind::new(&["ya29."], r"(?<s>ya29\.[A-Za-z0-9_-]{20,})"),
    prefixed!("[A-Za-z0-9_-]{20,}", "GOCSPX-"),
    Kind::new(&["1//0"], r"(?:^|[^A-Za-z0-9])(?<s>1//0[A-Za-z0-9_-]{30,})"),
    Kind::new(&["jqqj99"], r"(?<s>[A-Za-z0-9]{30,}JQQJ99[A-Za-z0-9]{20,})"),
    Kind::new(&["q~"], r"(?:^|[^A-Za-z0-9])(?<s>[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})"),
    prefixed!("[A-Za-z0-9]{12,30}", "LTAI"),
    prefixed!("[A-Za-z0-9]{32}", "AKID"),
    prefixed!("[a-f0-9]{60,}", "dop_v1_", "doo_v1_", "dor_v1_"),
    prefixed!("[A-Za-z0-9+/=_-]{30,}", "fm1r_", "fm2_", "fo1_"),
    prefixed!("[A-Za-z0-9-]{20,}", "HRKU-", "nfp_", "vcp_", "vck_", "rnd_"),
    prefixed!("[A-Za-z0-9_-]{20,}", "sbp_", "sb_secret_", "pscale_tkn_", "pscale_pw_"),
    // Infrastructure and what watches it.
    Kind::new(&["hvs.", "hvb.", "hvr."], r"(?:^|[^A-Za-z0-9])(?<s>hv[sbr]\.[A-Za-z0-9_-]{20,})"),
    Kind::new(&[".atlasv1."], r"(?<s>[A-Za-z0-9]{10,}\.atlasv1\.[A-Za-z0-9_=-]{40,})"),
    Kind::new(
        &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa."],
        r"(?:^|[^A-Za-z0-9])(?<s>dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9._-]{30,})",
    ),
    prefixed!("[a-f0-9]{32,}", "dapi", "pul-"),
    prefixed!("[A-Za-z0-9-]{20,}", "tskey-"),
    prefixed!("[A-Za-z0-9_=+/-]{20,}", "glc_", "glsa_", "sntrys_", "sntryu_", "phc_", "phx_"),
    prefixed!("[A-Za-z0-9-]{20,}", "NRAK-", "NRJS-", "NRII-", "PMAK-"),
    prefixed!("[A-Za-z0-9_=+/-]{30,}", "ops_eyJ"),
    prefixed!("[A-Z][A-Za-z0-9]{40,}", "EAA"),
    prefixed!("[A-Za-z0-9%]{50,}", "AAAAAAAAAAAAAAAAAAAA"),
    // Messages and mail.
    prefixed!(
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
    Kind::new(&["xoxe."], r"(?:^|[^A-Za-z0-9])(?<s>xoxe\.[A-Za-z0-9.-]{20,})"),
    Kind::new(
        &[".g", ".x", ".y"],
        concat!(
            r"(?:^|[^A-Za-z0-9])(?<s>[MNO][A-Za-z0-9_-]{23,27}\.[GXY][A-Za-z0-9_-]{5}",
            r"\.[A-Za-z0-9_-]{27,})"
        ),
    ),
    Kind::new(&[":aa"], r"(?:^|[^A-Za-z0-9])(?<s>[0-9]{8,10}:AA[A-Za-z0-9_-]{32,})"),
    Kind::new(&["sg."], r"(?:^|[^A-Za-z0-9])(?<s>SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"),
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
    prefixed!("[A-Za-z0-9_-]{20,}", "lin_api_", "lin_oauth_", "ntn_", "figd_", "CFPAT-"),
    prefixed!("[A-Za-z0-9]{40,}", "secret_"),
    Kind::new(&["pat"], r"(?:^|[^A-Za-z0-9])(?<s>pat[A-Za-z0-9]{14}\.[0-9a-f]{60,})"),
    Kind::new(&["sl."], r"(?:^|[^A-Za-z0-9])(?<s>sl\.(?:u\.|B)[A-Za-z0-9_-]{30,})"),
    // Headers, and values that are named.
    Kind::new(&["bearer"], r"(?i)bearer(?:\s|%20)+(?<s>[A-Za-z0-9._~+/=-]{8,})"),
    Kind::ambiguous(&["basic"], r"(?i)basic(?:\s|%20)+(?<s>[A-Za-z0-9+/=]{12,})"),
    Kind::new(
        &["authorization"],
        concat!(
            r#"(?i)authorization[\\"']*\s*[:=]\s*[\\"']*(?:basic|token|apikey)\s+"#,
            r#"(?<s>[^\s"',;&\\]{6,})"#
        ),
    ),
    Kind::new(
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

/// Whether a member of an object with this name holds a secret.
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

/// Whether a text holds a run of letters and digits that no word is.
pub(super) fn looks_random(text: &str) -> bool {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric());
    runs.into_iter().any(|run| {
        let has = |test: fn(&u8) -> bool| run.bytes().skip(1).any(|byte| test(&byte));
        let (digit, upper, lower) =
            (has(u8::is_ascii_digit), has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase));
        run.len() >= 20 || run.len() >= 12 && (digit && (upper || lower) || upper && lower)
    })
}
