//! Owns one ANN index that is open for measuring: what it indexes of a row, and how far two of
//! those are apart.
//! Must not know a formula: distances are those of the operator that the index orders by.

use crate::error::Error;
use pgrx::pg_sys;
use std::mem::{MaybeUninit, offset_of, size_of};

const SHARE: i32 = pg_sys::AccessShareLock as i32;

/// The support function of pgvector's operator classes that makes an index normalize.
const NORM_FUNCTION: u16 = 2;

/// Where a row is: its block and its place in the block.
pub type Tid = (u32, u16);

/// A row that is asked with.
pub struct Query {
    pub tid: Tid,
    /// What the index holds of it.
    pub value: pg_sys::Datum,
    /// Distances of the rows that the index returned, itself left out.
    pub returned: Vec<f64>,
}

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

pub struct AnnIndex {
    pub heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    estate: *mut pg_sys::EState,
    econtext: *mut pg_sys::ExprContext,
    predicate: *mut pg_sys::ExprState,
    call: pg_sys::FunctionCallInfo,
    function: Function,
    memory: pg_sys::MemoryContext,
    memory_before: pg_sys::MemoryContext,
    /// A row of the heap at a time.
    pub slot: *mut pg_sys::TupleTableSlot,
}

impl AnnIndex {
    /// Opens an index of an open table. What it takes is given back by `close`, or by the abort of
    /// the subtransaction.
    pub unsafe fn open(heap: pg_sys::Relation, index: pg_sys::Oid) -> Result<Self, Error> {
        // SAFETY: the catalogs describe the index; everything is allocated in the context made here.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"citus_fleet recall".as_ptr(),
                0,
                8 * 1024,
                8 * 1024 * 1024,
            );
            let memory_before = pg_sys::MemoryContextSwitchTo(memory);
            let index = pg_sys::index_open(index, SHARE);
            let info = pg_sys::BuildIndexInfo(index);
            let (call, function) = distance_call(index)?;
            let estate = pg_sys::CreateExecutorState();
            let econtext = pg_sys::MakePerTupleExprContext(estate);
            let predicate = pg_sys::ExecPrepareQual((*info).ii_Predicate, estate);
            let slot = pg_sys::table_slot_create(heap, std::ptr::null_mut());
            Ok(Self {
                heap,
                index,
                info,
                estate,
                econtext,
                predicate,
                call,
                function,
                memory,
                memory_before,
                slot,
            })
        }
    }

    pub fn close(self) {
        // SAFETY: what `open` has taken, given back once.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::index_close(self.index, SHARE);
            pg_sys::MemoryContextSwitchTo(self.memory_before);
            pg_sys::MemoryContextDelete(self.memory);
        }
    }

    /// The number of the index's file.
    pub fn filenode(&self) -> u32 {
        // SAFETY: the index is open.
        unsafe { (*self.index).rd_locator.relNumber.to_u32() }
    }

    /// How far apart the index may take rows to be that are equally far: one with a norm function
    /// holds vectors of length 1, each component rounded to 24 bits, and compares those.
    pub fn slack(&self) -> f64 {
        // SAFETY: the index is open; a support function that it does not have is no oid.
        let norm = unsafe { pg_sys::index_getprocid(self.index, 1, NORM_FUNCTION) };
        if norm == pg_sys::InvalidOid { 0.0 } else { 1e-6 }
    }

    /// Where the row in the slot is.
    pub fn tid(&self) -> Tid {
        // SAFETY: the slot holds a row of the heap.
        let tid = unsafe { (*self.slot).tts_tid };
        (u32::from(tid.ip_blkid.bi_hi) << 16 | u32::from(tid.ip_blkid.bi_lo), tid.ip_posid)
    }

    /// What the index holds of the row in the slot, valid until the next call; nothing where the
    /// value is NULL or the index's predicate leaves the row out.
    pub fn value(&self) -> Option<pg_sys::Datum> {
        let mut values = MaybeUninit::<[pg_sys::Datum; pg_sys::INDEX_MAX_KEYS as usize]>::uninit();
        let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
        // SAFETY: the slot holds a row; the arrays have room for every key of any index; the types
        // of pgvector are all of variable length.
        unsafe {
            let per_row = (*self.econtext).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(per_row);
            (*self.econtext).ecxt_scantuple = self.slot;
            if !pg_sys::ExecQual(self.predicate, self.econtext) {
                return None;
            }
            pg_sys::FormIndexDatum(
                self.info,
                self.slot,
                self.estate,
                values.as_mut_ptr().cast(),
                nulls.as_mut_ptr(),
            );
            if nulls[0] {
                return None;
            }
            let first: *const pg_sys::Datum = values.as_ptr().cast();
            let before = pg_sys::MemoryContextSwitchTo(per_row);
            let plain = pg_sys::pg_detoast_datum((*first).cast_mut_ptr());
            pg_sys::MemoryContextSwitchTo(before);
            Some(pg_sys::Datum::from(plain))
        }
    }

    /// A copy of a value that lives until `close`.
    pub fn keep(&self, value: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: a value of variable length; the context ends with `close`.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.memory);
            let copy = pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr());
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::Datum::from(copy)
        }
    }

    /// How far a row is from each query; NaN where the function gives none.
    pub fn distances(&self, row: pg_sys::Datum, queries: &[Query], distances: &mut [f64]) {
        let (call, function) = (self.call, self.function);
        // SAFETY: one guard for all calls instead of one for each, which would cost as much as the
        // function. An ERROR leaves the closure by longjmp, and it owns nothing that needs a drop.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let arguments = (*call).args.as_mut_ptr();
                (*arguments).value = row;
                let second = arguments.add(1);
                for (query, distance) in queries.iter().zip(distances) {
                    (*second).value = query.value;
                    (*call).isnull = false;
                    let result = function(call);
                    *distance = if (*call).isnull {
                        f64::NAN
                    } else {
                        f64::from_bits(result.value() as u64)
                    };
                }
            });
        }
    }

    /// How far a row is from one query.
    pub fn distance(&self, row: pg_sys::Datum, query: &Query) -> f64 {
        let mut distance = [f64::NAN];
        self.distances(row, std::slice::from_ref(query), &mut distance);
        distance[0]
    }

    /// Begins a search of the index with a snapshot.
    pub fn begin_search(&self, snapshot: pg_sys::Snapshot) -> pg_sys::IndexScanDesc {
        // SAFETY: both relations are open; no search key, one key to order by.
        unsafe {
            #[cfg(any(feature = "pg16", feature = "pg17"))]
            return pg_sys::index_beginscan(self.heap, self.index, snapshot, 0, 1);
            #[cfg(feature = "pg18")]
            return pg_sys::index_beginscan(
                self.heap,
                self.index,
                snapshot,
                std::ptr::null_mut(),
                0,
                1,
            );
        }
    }

    /// The key that orders by the distance from a query, as the planner makes it.
    pub fn order_by(&self, query: &Query) -> pg_sys::ScanKeyData {
        let mut key = MaybeUninit::<pg_sys::ScanKeyData>::uninit();
        // SAFETY: every field is written; the index is open and has at least one key.
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                key.as_mut_ptr(),
                pg_sys::SK_ORDER_BY as i32,
                1,
                1,
                *(*self.index).rd_opcintype,
                *(*self.index).rd_indcollation,
                (*(*self.call).flinfo).fn_oid,
                query.value,
            );
            key.assume_init()
        }
    }
}

/// The function of the operator that the index orders by, ready to be called: it is found by the
/// operator family, so no name is ever looked up.
unsafe fn distance_call(
    index: pg_sys::Relation,
) -> Result<(pg_sys::FunctionCallInfo, Function), Error> {
    // SAFETY: the index is open; the call's memory is zeroed and has room for two arguments.
    unsafe {
        let (family, input) = (*(*index).rd_opfamily, *(*index).rd_opcintype);
        let operator = pg_sys::get_opfamily_member(family, input, input, 1);
        let function = pg_sys::get_opcode(operator);
        if function == pg_sys::InvalidOid {
            return Err(Error::Internal("its operator class orders by no operator".into()));
        }
        let flinfo: *mut pg_sys::FmgrInfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast();
        pg_sys::fmgr_info(function, flinfo);
        let address = (*flinfo)
            .fn_addr
            .ok_or_else(|| Error::Internal("its distance function has no address".into()))?;
        let size = offset_of!(pg_sys::FunctionCallInfoBaseData, args)
            + 2 * size_of::<pg_sys::NullableDatum>();
        let call: pg_sys::FunctionCallInfo = pg_sys::palloc0(size).cast();
        (*call).flinfo = flinfo;
        (*call).fncollation = *(*index).rd_indcollation;
        (*call).nargs = 2;
        Ok((call, address))
    }
}
