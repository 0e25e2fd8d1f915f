//! Owns the shape of a finding of `fleet.doctor()`.
//! Must not find anything.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Ok,
    Warning,
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One row of `fleet.doctor()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub check: &'static str,
    pub status: Severity,
    pub finding: String,
    pub remedy: Option<String>,
}

pub fn ok(check: &'static str, finding: impl Into<String>) -> Advice {
    Advice { check, status: Severity::Ok, finding: finding.into(), remedy: None }
}

pub fn warning(
    check: &'static str,
    finding: impl Into<String>,
    remedy: impl Into<String>,
) -> Advice {
    Advice {
        check,
        status: Severity::Warning,
        finding: finding.into(),
        remedy: Some(remedy.into()),
    }
}

pub fn error(check: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Advice {
    Advice { check, status: Severity::Error, finding: finding.into(), remedy: Some(remedy.into()) }
}
