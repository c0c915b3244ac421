//! The all-reduce, and which way it goes.
//!
//! | where the ranks are | small | large |
//! |---|---|---|
//! | on one host | staged in shared memory | in place in shared memory |
//! | on several hosts | as above on each host, then between one rank of each host: | |
//! | | recursive doubling | ring |
//!
//! Where ranks of one host cannot share memory, doubling and ring join all ranks. The limits below
//! come from `annulus bench allreduce`.

use super::element::{Element, Op};
use super::header::{Header, Kind};
use super::node::Place;
use super::{Algorithm, Group, Wire, doubling, in_node, ring, wire};
use crate::comm::Peer;
use crate::error::Result;

/// Up to this many bytes the boards are faster than two turns over buffers in place: one turn
/// instead of two, for more bytes read.
const STAGED_UP_TO: usize = 8 << 10;
/// Up to this many bytes recursive doubling is faster than a ring: log₂ P messages instead of 2(P−1).
const DOUBLING_UP_TO: usize = 16 << 10;

/// The way of one all-reduce.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Through the boards of each host, and across hosts.
    Staged,
    /// In place in each host's shared memory, and across hosts.
    InPlace(Place),
    /// Over messages between all ranks.
    Messages(Algorithm),
}

impl Group {
    /// Reduces `data` element by element over all ranks, in place. Afterwards all ranks hold the
    /// same bits. Works for any length that is equal on all ranks.
    ///
    /// # Errors
    /// When a rank is late, dead, or in another collective.
    pub fn all_reduce<T: Element>(&mut self, data: &mut [T], op: Op) -> Result<()> {
        self.all_reduce_by(self.tuning.algorithm, data, op).map(|_| ())
    }

    /// As [`Group::all_reduce`] by the given algorithm; `Ok(false)`, and nothing done, where these
    /// ranks do not have it.
    ///
    /// # Errors
    /// As [`Group::all_reduce`].
    pub fn all_reduce_by<T: Element>(
        &mut self,
        algorithm: Algorithm,
        data: &mut [T],
        op: Op,
    ) -> Result<bool> {
        // Equal on all ranks, whether or not their hosts have several.
        if algorithm == Algorithm::Shared && (self.shared.is_err() || self.size() == 1) {
            return Ok(false);
        }
        let way = self.way(algorithm, data);
        let header =
            self.next_header(Kind::AllReduce, T::TYPE, op as u8, data.len(), algorithm as u64);
        if self.size() == 1 {
            return Ok(true);
        }
        match way {
            Way::Messages(algorithm) => {
                self.begin(&header)?;
                if algorithm == Algorithm::Mpi && !data.is_empty() {
                    self.sent += size_of_val(data) as u64;
                    return self.peer.native_all_reduce(T::reducible(data), op == Op::Max);
                }
                self.over_messages(algorithm, data, op)?;
            }
            Way::Staged => self.staged(&header, data, op)?,
            Way::InPlace(place) => self.in_place(&header, place, data, op)?,
        }
        Ok(true)
    }

    /// MPI's own blocking all-reduce, for comparison: no header, no deadline. `Ok(false)` without MPI.
    ///
    /// # Errors
    /// When MPI fails.
    pub fn mpi_sum(&mut self, from: &[f32], into: &mut [f32]) -> Result<bool> {
        self.peer.native_sum(from, into)
    }

    fn way<T>(&self, algorithm: Algorithm, data: &[T]) -> Way {
        let shared = self.shared.is_ok() && (self.node.is_some() || self.host_count() > 1);
        if !(shared && matches!(algorithm, Algorithm::Auto | Algorithm::Shared)) {
            return Way::Messages(algorithm);
        }
        let place = self.node.as_ref().and_then(|node| node.place(data));
        match place {
            Some(place) if size_of_val(data) > STAGED_UP_TO => Way::InPlace(place),
            _ => Way::Staged,
        }
    }

    fn staged<T: Element>(&mut self, header: &Header, data: &mut [T], op: Op) -> Result<()> {
        if let Some(node) = &mut self.node {
            self.sent += size_of_val(data) as u64;
            in_node::staged(node, &mut self.peer, header, data, op)?;
        }
        if self.host_count() == 1 {
            return Ok(());
        }
        self.across(header, data, op)?;
        match &mut self.node {
            Some(node) => in_node::hand_out(node, &mut self.peer, header, data),
            None => Ok(()),
        }
    }

    fn in_place<T: Element>(
        &mut self,
        header: &Header,
        place: Place,
        data: &mut [T],
        op: Op,
    ) -> Result<()> {
        let Some(node) = &mut self.node else { return self.staged(header, data, op) };
        self.sent += size_of_val(data) as u64;
        // The ranks of a host must mean the same buffer; other hosts need not know which.
        let local = header.with_root(place.tag());
        let alone = self.host_count == 1;
        let targets = 0..if alone { node.ranks.len() } else { 1 };
        in_node::in_place(node, &mut self.peer, &local, place, data, op, targets)?;
        if alone {
            return Ok(());
        }
        self.across(header, data, op)?;
        let Some(node) = &mut self.node else { return Ok(()) };
        in_node::from_first(node, &mut self.peer, &local, place, data)
    }

    /// Between the hosts: the first rank of each.
    fn across<T: Element>(&mut self, header: &Header, data: &mut [T], op: Op) -> Result<()> {
        self.begin_across(header)?;
        if self.leaders.is_some() {
            self.over_messages(Algorithm::Auto, data, op)?;
        }
        Ok(())
    }

    fn over_messages<T: Element>(
        &mut self,
        algorithm: Algorithm,
        data: &mut [T],
        op: Op,
    ) -> Result<()> {
        let circle = match (algorithm, &self.shared, &self.leaders) {
            (Algorithm::Auto, Ok(()), Some(leaders)) => leaders,
            _ => &self.everyone,
        };
        let small = size_of_val(data) <= DOUBLING_UP_TO && circle.size() > 2;
        let doubled = algorithm == Algorithm::Doubling || (algorithm == Algorithm::Auto && small);
        if circle.size() == 1 || data.is_empty() {
            return Ok(());
        }
        let (peer, wire) = (&mut self.peer, self.tuning.wire);
        let sent = if wire != Wire::F32 && T::TYPE == f32::TYPE && op == Op::Sum && !doubled {
            let data = bytemuck::cast_slice_mut(data);
            wire::all_reduce(peer, circle, data, wire, &mut self.scratch)?
        } else if doubled {
            doubling::all_reduce(peer, circle, data, op)?
        } else {
            ring::all_reduce(peer, circle, data, op)?
        };
        self.sent += sent;
        Ok(())
    }
}
