//! How the ranks meet: names, hosts, cores, and shared memory on each host.

use super::circle::{Circle, by_host};
use super::identity::Identity;
use super::node::Node;
use super::{Group, Tuning};
use crate::comm::{Checked, Peer};
use crate::error::{Error, Result};
use crate::util::aligned::FlatBuf;
use crate::util::shared::{Address, SharedBlock};
use crate::util::whereabouts;
use std::sync::Arc;

impl Group {
    /// Meets the other ranks and learns their hosts. All ranks must call it first of all.
    ///
    /// # Errors
    /// When a rank does not come within the deadline.
    pub fn meet(peer: Box<dyn Peer>) -> Result<Group> {
        Group::meet_on(peer, whereabouts::host_name())
    }

    /// As [`Group::meet`], on a host of the given name: the ranks that give one name must be able to
    /// share memory.
    ///
    /// # Errors
    /// As [`Group::meet`].
    pub fn meet_on(peer: Box<dyn Peer>, host: String) -> Result<Group> {
        whereabouts::identify(peer.rank(), peer.size());
        let mut group = Group::unacquainted(peer)?;
        let all = group.all_gather(&Identity::of_this_process(host).to_bytes())?;
        let all: Vec<Identity> = all.iter().map(|bytes| Identity::from_bytes(bytes)).collect();
        let name =
            |(rank, id): (usize, &Identity)| format!("rank {rank} ({}, pid {})", id.host, id.pid);
        let names = all.iter().enumerate().map(name).collect();
        group.hosts = all.iter().map(|id| id.host.clone()).collect();
        let here = &group.hosts[group.rank()];
        let mut cores: Vec<u32> =
            all.iter().filter(|id| id.host == *here).flat_map(|id| id.cores.clone()).collect();
        cores.sort_unstable();
        cores.dedup();
        group.local_cores = cores.len();
        let crowded = group.local_ranks() > group.local_cores;
        group.peer.introduce(names, crowded);
        group.share_memory(crowded)?;
        // Messages count collectives from here.
        group.collectives = 0;
        Ok(group)
    }

    fn unacquainted(peer: Box<dyn Peer>) -> Result<Group> {
        let (rank, size) = (peer.rank(), peer.size());
        let everyone = Circle::of((0..size).collect(), rank)
            .ok_or_else(|| Error::Internal(format!("there is no rank {rank} of {size}")))?;
        Ok(Group {
            peer: Checked::new(peer),
            hosts: Vec::new(),
            local_cores: 1,
            everyone,
            leaders: None,
            host_count: size,
            node: None,
            shared: Err("the ranks have not met".to_owned()),
            tuning: Tuning::default(),
            scratch: Vec::new(),
            tree_scratch: Vec::new(),
            collectives: 0,
            sent: 0,
            slip: None,
            failed_together: false,
        })
    }

    /// Joins the ranks of each host in shared memory, all hosts or none.
    fn share_memory(&mut self, crowded: bool) -> Result<()> {
        let (rank, hosts) = (self.rank(), by_host(&self.hosts));
        self.host_count = hosts.len();
        let ranks = hosts.iter().find(|ranks| ranks.contains(&rank)).cloned().unwrap_or_default();
        if let Some(everyone) = Circle::of(hosts.concat(), rank) {
            self.everyone = everyone;
        }
        let nonce = u64::from(std::process::id()) << 32 ^ rank as u64 ^ 0x616e_6e75_6c75_7300;
        let board = Node::own_board().inspect(|board| Node::sign(board, nonce));
        let addresses = self.exchange_addresses(&board, nonce)?;
        let joined = board.and_then(|board| {
            let theirs: Vec<_> = ranks.iter().map(|&r| addresses[r]).collect();
            let places: Vec<Address> = theirs.iter().map(|&(address, _)| address).collect();
            let node = Node::open(ranks, rank, board, &places, crowded)?;
            match theirs.iter().enumerate().find(|&(i, &(_, nonce))| node.signature(i) != nonce) {
                None => Ok(node),
                Some((i, _)) => Err(Error::Internal(format!(
                    "process {} is not in sight of this one (another container?)",
                    places[i].pid
                ))),
            }
        });
        self.shared = self.all_or_none(joined.as_ref().err())?;
        if self.shared.is_ok() {
            let leaders = hosts.iter().map(|ranks| ranks[0]).collect();
            self.leaders = Circle::of(leaders, rank);
            self.node = joined.ok().filter(|node| node.ranks.len() > 1);
        }
        Ok(())
    }

    /// Where each rank's block is, with its nonce.
    fn exchange_addresses(
        &mut self,
        block: &Result<SharedBlock>,
        nonce: u64,
    ) -> Result<Vec<(Address, u64)>> {
        let address = block.as_ref().map_or(Address { pid: 0, fd: 0 }, SharedBlock::address);
        let words = [u64::from(address.pid), u64::from(address.fd), nonce];
        let all = self.all_gather(bytemuck::bytes_of(&words))?;
        let read = |bytes: &Vec<u8>| {
            let words: [u64; 3] = bytemuck::try_pod_read_unaligned(bytes).unwrap_or_default();
            (Address { pid: words[0] as u32, fd: words[1] as u32 }, words[2])
        };
        Ok(all.iter().map(read).collect())
    }

    /// `Ok` when no rank failed; else the first failure, for all.
    fn all_or_none(&mut self, failed: Option<&Error>) -> Result<std::result::Result<(), String>> {
        let mine = failed.map(ToString::to_string).unwrap_or_default();
        let all = self.all_gather(mine.as_bytes())?;
        let first = (0..all.len()).find(|&rank| !all[rank].is_empty());
        Ok(match first {
            None => Ok(()),
            Some(rank) => Err(format!("rank {rank}: {}", String::from_utf8_lossy(&all[rank]))),
        })
    }

    /// Memory for `len` numbers, zeroed, that an all-reduce can work on without copies: the ranks of
    /// a host read each other's in place. Ordinary memory where they cannot. All ranks call it alike.
    ///
    /// # Errors
    /// When there is no memory at all.
    pub fn shared_buffer(&mut self, len: usize) -> Result<FlatBuf> {
        if self.shared.is_err() || (self.node.is_none() && self.host_count == 1) {
            return FlatBuf::zeroed(len);
        }
        let bytes = len * size_of::<f32>();
        let mine = SharedBlock::create(bytes);
        let addresses = self.exchange_addresses(&mine, bytes as u64)?;
        let opened = mine.and_then(|mine| self.open_views(mine, bytes, &addresses));
        let all = self.all_or_none(opened.as_ref().err())?;
        match (&mut self.node, opened, all) {
            (Some(node), Ok(views), Ok(())) => node.register(views, len),
            _ => FlatBuf::zeroed(len),
        }
    }

    /// This host's views of its ranks' blocks, by local rank.
    fn open_views(
        &self,
        mine: SharedBlock,
        bytes: usize,
        addresses: &[(Address, u64)],
    ) -> Result<Vec<Arc<SharedBlock>>> {
        let Some(node) = &self.node else { return Ok(vec![Arc::new(mine)]) };
        let mut mine = Some(mine);
        let view = |&rank: &usize| {
            let own = mine.take_if(|_| rank == self.rank());
            own.map_or_else(|| SharedBlock::open(addresses[rank].0, bytes), Ok).map(Arc::new)
        };
        node.ranks.iter().map(view).collect()
    }
}
