//! Who takes part in a ring, and in which order.

/// The ranks of a ring in ring order, as seen by one of them.
#[derive(Debug, Clone)]
pub struct Circle {
    ranks: Vec<usize>,
    place: usize,
}

impl Circle {
    /// The ring over `ranks`, in this order, as seen by rank `me`; `None` where it is not one of them.
    #[must_use]
    pub fn of(ranks: Vec<usize>, me: usize) -> Option<Circle> {
        let place = ranks.iter().position(|&rank| rank == me)?;
        Some(Circle { ranks, place })
    }

    /// Number of ranks.
    #[must_use]
    pub fn size(&self) -> usize {
        self.ranks.len()
    }

    /// This rank's place, 0..size.
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    /// The rank at a place; places count on round the ring.
    #[must_use]
    pub fn rank(&self, place: usize) -> usize {
        self.ranks[place % self.ranks.len()]
    }

    /// The rank that this one sends to.
    #[must_use]
    pub fn right(&self) -> usize {
        self.rank(self.place + 1)
    }

    /// The rank that this one receives from.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rank(self.place + self.size() - 1)
    }
}

/// The ranks by host: the ranks of each host, ascending, hosts in the order of their first ranks.
/// A ring in this order crosses each link between hosts once, whatever order the scheduler chose.
#[must_use]
pub fn by_host(hosts: &[String]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (rank, host) in hosts.iter().enumerate() {
        match groups.iter_mut().find(|group| hosts[group[0]] == *host) {
            Some(group) => group.push(rank),
            None => groups.push(vec![rank]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_of_a_host_are_neighbours_whatever_order_the_scheduler_chose() {
        let hosts = ["b", "a", "b", "c", "a"].map(str::to_owned);
        assert_eq!(by_host(&hosts), [vec![0, 2], vec![1, 4], vec![3]]);
        let circle = Circle::of(by_host(&hosts).concat(), 1).unwrap();
        assert_eq!((circle.left(), circle.right(), circle.size()), (2, 4, 5));
        assert_eq!(Circle::of(vec![0, 2], 1).map(|c| c.size()), None);
    }
}
