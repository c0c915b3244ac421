//! The average of the parameters that a replica keeps: which, when it is shown in their place, where it ends.

use super::replica::Replica;
use crate::checkpoint::model_file::Named;
use crate::config::Train;
use crate::error::Result;
use crate::optim::{Average, AverageRule};

/// The average that the card wants.
///
/// # Errors
/// When there is no memory for it.
pub fn kept(card: &Train, lens: &[usize]) -> Result<Option<Average>> {
    let rule = match (&card.ema, &card.swa) {
        (Some(ema), _) => AverageRule::Ema { decay: ema.decay, warmup: ema.warmup },
        (None, Some(_)) => AverageRule::Swa,
        (None, None) => return Ok(None),
    };
    Average::new(rule, lens).map(Some)
}

impl Replica {
    /// Takes the parameters as they are into the average.
    ///
    /// # Errors
    /// When they cannot be copied from their device.
    pub fn take_into_average(&mut self) -> Result<()> {
        let Some(average) = &mut self.average else { return Ok(()) };
        average.begin();
        for (i, param) in self.params.iter().enumerate() {
            param.read(|theta| average.take(i, theta))?;
        }
        Ok(())
    }

    /// Whether there is an average of anything.
    #[must_use]
    pub fn has_average(&self) -> bool {
        self.average.as_ref().is_some_and(|average| average.taken() > 0)
    }

    /// Lets parameters and average change places; once more, and all is as before.
    ///
    /// # Errors
    /// When they cannot be copied from or to their device.
    pub fn swap_average(&mut self) -> Result<()> {
        let Some(average) = &mut self.average else { return Ok(()) };
        for (i, param) in self.params.iter().enumerate() {
            let average = average.of(i);
            param.update(|theta| theta.swap_with_slice(average))?;
        }
        Ok(())
    }

    /// What stands in the average's place, by name; nothing if it never took anything in.
    #[must_use]
    pub fn beside(&self) -> Option<Vec<Named>> {
        let average = self.average.as_ref().filter(|average| average.taken() > 0)?;
        let shapes = self.shapes();
        let mut found = Vec::with_capacity(shapes.len());
        average.visit(&mut |_, i, values| {
            let (name, shape) = shapes[i].clone();
            found.push(Named { name, shape, values: values.to_vec() });
        });
        Some(found)
    }
}
