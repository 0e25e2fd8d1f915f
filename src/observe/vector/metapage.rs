//! Owns looking at relations on disk: how many pages they have, and what a vector index says of
//! itself on its first ones. Must not wait for a lock and must not read rows of a table.
//!
//! The layouts are pgvector's (hnsw.h, ivfflat.h), unchanged from 0.5 to 0.8. What does not carry
//! the magic number is left alone.

use decide::search::vector::model::Metapage;
use pgrx::pg_sys;

const HNSW_MAGIC: u32 = 0xA953_A953;
const IVFFLAT_MAGIC: u32 = 0x014F_F1A7;
/// Bytes of a page's header; the metapage's own structure begins behind it.
const PAGE_HEADER: usize = 24;
const INVALID_BLOCK: u32 = u32::MAX;

/// A relation that is held open with the weakest lock until it goes out of scope.
pub struct Opened(pg_sys::Relation);

impl Opened {
    /// Opens a relation unless somebody holds it exclusively or it is gone.
    pub fn without_waiting(oid: u32) -> Option<Self> {
        let oid = pg_sys::Oid::from(oid);
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: the lock is taken before the relation is looked up, and given back where there
        // is none; an ERROR's abort gives it back too.
        unsafe {
            if !pg_sys::ConditionalLockRelationOid(oid, lock) {
                return None;
            }
            let relation = pg_sys::try_relation_open(oid, pg_sys::NoLock as pg_sys::LOCKMODE);
            if relation.is_null() {
                pg_sys::UnlockRelationOid(oid, lock);
                return None;
            }
            Some(Self(relation))
        }
    }

    /// Pages of its main fork.
    pub fn pages(&self) -> u32 {
        // SAFETY: the relation is open; only relations with storage are asked.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// What a vector index says of itself; nothing where it says nothing that is understood.
    pub fn metapage(&self) -> Option<Metapage> {
        let pages = self.pages();
        let first = self.read(0, pages)?;
        match u32_at(&first, PAGE_HEADER)? {
            HNSW_MAGIC => hnsw(&first),
            IVFFLAT_MAGIC => self.ivfflat(&first, pages),
            _ => None,
        }
    }

    /// The lists lie one behind the other on the pages after the metapage, and each says where its
    /// first page of vectors is. A build fills the lists one after the other, and what is inserted
    /// later goes to new pages at the end: so the distance from the first list's first page to the
    /// last one's is what the build has written.
    fn ivfflat(&self, first: &[u8], pages: u32) -> Option<Metapage> {
        let lists = u32::from(u16_at(first, PAGE_HEADER + 10)?);
        let built = || {
            let page = self.read(1, pages)?;
            let per_page = items(&page)?;
            let last_page = 1 + lists.checked_sub(1)?.checked_div(per_page)?;
            let begin = start_page(&page, 0)?;
            let end = start_page(&self.read(last_page, pages)?, (lists - 1) % per_page)?;
            let built = end.checked_sub(begin)? + 1;
            (built >= lists && end < pages).then_some((built, begin))
        };
        let built = built();
        Some(Metapage::Ivfflat {
            version: u32_at(first, PAGE_HEADER + 4)?,
            dimensions: u32::from(u16_at(first, PAGE_HEADER + 8)?),
            lists,
            built_pages: built.map(|(built, _)| built.into()),
            head_pages: built.map(|(_, begin)| begin.into()),
        })
    }

    /// A copy of one page; nothing where the relation has no such page.
    fn read(&self, block: u32, pages: u32) -> Option<Vec<u8>> {
        if block >= pages {
            return None;
        }
        // SAFETY: the block exists; the page is copied under a share lock on its buffer, as every
        // reader of an index takes it, and the pin ends with it.
        unsafe {
            let buffer = pg_sys::ReadBuffer(self.0, block);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer) as *const u8;
            let copy = std::slice::from_raw_parts(page, pg_sys::BLCKSZ as usize).to_vec();
            pg_sys::UnlockReleaseBuffer(buffer);
            Some(copy)
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: opened with this lock and closed once. After an ERROR the abort has closed it, and
        // unwinding comes before the abort.
        unsafe { pg_sys::relation_close(self.0, pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    }
}

/// `HnswMetaPageData`: magic, version, dimensions u32; m, efConstruction u16; entryBlkno u32; …
fn hnsw(page: &[u8]) -> Option<Metapage> {
    Some(Metapage::Hnsw {
        version: u32_at(page, PAGE_HEADER + 4)?,
        dimensions: u32_at(page, PAGE_HEADER + 8)?,
        m: u16_at(page, PAGE_HEADER + 12)?.into(),
        ef_construction: u16_at(page, PAGE_HEADER + 14)?.into(),
        has_entry: u32_at(page, PAGE_HEADER + 16)? != INVALID_BLOCK,
    })
}

/// Number of items on a page, from where its line pointers end (`pd_lower`).
fn items(page: &[u8]) -> Option<u32> {
    let lower = usize::from(u16_at(page, 12)?);
    u32::try_from(lower.checked_sub(PAGE_HEADER)? / 4).ok().filter(|&count| count > 0)
}

/// `IvfflatListData` of an item: startPage, insertPage u32, then the centre.
fn start_page(page: &[u8], item: u32) -> Option<u32> {
    if item >= items(page)? {
        return None;
    }
    // A line pointer holds its item's offset in the lower 15 bits.
    let pointer = u32_at(page, PAGE_HEADER + 4 * usize::try_from(item).ok()?)?;
    u32_at(page, usize::try_from(pointer & 0x7fff).ok()?)
}

fn u32_at(page: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(page.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(page: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(page.get(at..at + 2)?.try_into().ok()?))
}
