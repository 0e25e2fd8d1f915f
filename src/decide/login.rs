//! Owns why a login to another server did not become a session, in words that stay the same.
//! Must not know who wanted to log in, or what for.

/// Why a connection to a server did not get as far as a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailureKind {
    Unresolvable,
    NoRoute,
    Refused,
    Timeout,
    Tls,
    WrongPassword,
    /// A stranger wants a proof of the password that is not bound to the connection it is sent over.
    PasswordNotBound,
    NotPermitted,
    DatabaseMissing,
    StartingUp,
    TooManyConnections,
    /// What it wants to be proved is still being computed.
    Computing,
    /// Others have computations under way, and no more strangers are logged in to meanwhile.
    Crowded,
    /// The answer was not PostgreSQL's, was too large, or broke off.
    Protocol,
    Other,
}

impl LoginFailureKind {
    /// Whether nobody has answered. Every other failure comes from somebody who runs there, and who may
    /// write what we are not let in to see.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::Unresolvable | Self::NoRoute | Self::Refused | Self::Timeout)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolvable => "unresolvable",
            Self::NoRoute => "no route",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "TLS",
            Self::WrongPassword => "wrong password",
            Self::PasswordNotBound => "password not bound",
            Self::NotPermitted => "not permitted",
            Self::DatabaseMissing => "database missing",
            Self::StartingUp => "starting up",
            Self::TooManyConnections => "too many connections",
            Self::Computing => "computing",
            Self::Crowded => "crowded",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFailure {
    pub kind: LoginFailureKind,
    /// The server's or libpq's own words, in one line.
    pub message: String,
}
