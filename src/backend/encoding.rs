//! Owns the border between text here, which is UTF-8, and text in the database, which is in the encoding
//! of the database. pgrx takes the two for one.
//! Must not fail: a character that the other side does not have becomes a question mark.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys::{self, pg_enc};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, direct_function_call_as_datum};
use serde_json::Value;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};

/// `text` for a statement or a result.
pub struct Text(pub String);

/// `json` for a result.
pub struct Json(pub Value);

/// `jsonb` for a statement or a result.
pub struct JsonB(pub Value);

fn encoding() -> u32 {
    // SAFETY: a variable of this process, set when it connected.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    u32::try_from(encoding).unwrap_or(pg_enc::PG_SQL_ASCII)
}

/// Whether bytes go through as they are: SQL_ASCII is whatever somebody has put there.
fn is_plain() -> bool {
    matches!(encoding(), pg_enc::PG_UTF8 | pg_enc::PG_SQL_ASCII)
}

/// The text of a datum of type `text`, `json` or `name`'s like.
///
/// # Safety
/// The datum is a varlena that is not null.
pub unsafe fn from_datum(datum: pg_sys::Datum) -> String {
    // SAFETY: detoasted into the current memory context.
    unsafe {
        let text = pg_sys::text_to_cstring(datum.cast_mut_ptr());
        let converted = match is_plain() {
            true => text,
            false => {
                let length = CStr::from_ptr(text).to_bytes().len() as c_int;
                pg_sys::pg_server_to_any(text, length, pg_enc::PG_UTF8 as c_int)
            }
        };
        let owned = CStr::from_ptr(converted).to_string_lossy().into_owned();
        if converted != text {
            pg_sys::pfree(converted.cast());
        }
        pg_sys::pfree(text.cast());
        owned
    }
}

/// The same text in the encoding of the database.
fn to_server(text: &str) -> CString {
    let text = CString::new(representable(text).replace('\0', "?")).unwrap_or_default();
    if is_plain() {
        return text;
    }
    let length = text.as_bytes().len() as c_int;
    // SAFETY: every character has been seen to have a counterpart.
    unsafe {
        let converted = pg_sys::pg_any_to_server(text.as_ptr(), length, pg_enc::PG_UTF8 as c_int);
        CStr::from_ptr(converted).to_owned()
    }
}

fn representable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_plain() {
        return Cow::Borrowed(text);
    }
    let mut room = [0u8; 17];
    // SAFETY: the buffer has MAX_UNICODE_EQUIVALENT_STRING + 1 bytes.
    let mut is_known = |c: char| unsafe {
        c.is_ascii() || pg_sys::pg_unicode_to_server_noerror(c.into(), room.as_mut_ptr())
    };
    Cow::Owned(text.chars().map(|c| if is_known(c) { c } else { '?' }).collect())
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = to_server(&self.0);
        // SAFETY: a NUL-terminated string, which is copied.
        Some(unsafe { pg_sys::cstring_to_text(text.as_ptr()) }.into())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Self> {
        // SAFETY: as the caller says.
        (!is_null).then(|| Self(unsafe { from_datum(datum) }))
    }
}

impl IntoDatum for Json {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Text(self.0.to_string()).into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONOID
    }
}

impl IntoDatum for JsonB {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = to_server(&self.0.to_string());
        // SAFETY: a NUL-terminated string, which is copied.
        unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())]) }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

/// What a function may return.
macro_rules! returned {
    ($($kind:ident is $name:literal),*) => {
        $(
            // SAFETY: `into_datum` gives a datum of that type.
            unsafe impl SqlTranslatable for $kind {
                const TYPE_IDENT: &'static str = concat!("citus_fleet::", stringify!($kind));
                const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
                const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
                    Ok(SqlMappingRef::literal($name));
                const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                    Ok(ReturnsRef::One(SqlMappingRef::literal($name)));
            }

            // SAFETY: as above.
            unsafe impl BoxRet for $kind {
                unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
                    match self.into_datum() {
                        // SAFETY: as above.
                        Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
                        None => fcinfo.return_null(),
                    }
                }
            }
        )*
    };
}

returned!(Text is "text", Json is "json", JsonB is "jsonb");
