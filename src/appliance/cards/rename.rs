//! A plan of new names carried out, in two steps: the kernel refuses a name that is
//! taken, so all cards leave their names before any gets its new one.

use anyhow::{Result, bail};

use super::naming::{Move, Plan};
use crate::appliance::context::Appliance;
use crate::system::Cmd;

/// Renames as `plan` says. A card that does not get its new name keeps its old one,
/// or one for the time being where that has gone to another card.
///
/// # Errors
/// Names every card that could not be renamed; the others are.
pub fn carry_out(appliance: &Appliance, plan: &Plan) -> Result<()> {
    let mut faults = plan.blocked.clone();
    let mut on_the_way = Vec::new();
    for step in &plan.moves {
        match leave(appliance, step) {
            Ok(()) => on_the_way.push(step),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    for step in on_the_way {
        if let Err(error) = arrive(appliance, step) {
            faults.push(format!("{error:#}"));
        }
    }
    if !faults.is_empty() {
        bail!("naming the network cards: {}", faults.join("; "));
    }
    Ok(())
}

/// Frees the old name; the kernel renames only what is switched off.
fn leave(appliance: &Appliance, step: &Move) -> Result<()> {
    switch(appliance, &step.from, "down")?;
    let left = rename(appliance, &step.from, &step.by_way_of);
    if left.is_err() && step.is_up {
        switch(appliance, &step.from, "up")?;
    }
    left
}

fn arrive(appliance: &Appliance, step: &Move) -> Result<()> {
    let arrived = rename(appliance, &step.by_way_of, &step.to);
    let name = match &arrived {
        Ok(()) => &step.to,
        Err(_) => match rename(appliance, &step.by_way_of, &step.from) {
            Ok(()) => &step.from,
            // Another card has it by now; the next start tries again.
            Err(_) => &step.by_way_of,
        },
    };
    if step.is_up {
        switch(appliance, name, "up")?;
    }
    arrived
}

fn rename(appliance: &Appliance, from: &str, to: &str) -> Result<()> {
    let cmd = Cmd::new("ip").args(["link", "set", "dev", from, "name", to]);
    appliance.sys.run(&cmd).map(drop)
}

fn switch(appliance: &Appliance, name: &str, to: &str) -> Result<()> {
    let cmd = Cmd::new("ip").args(["link", "set", "dev", name, to]);
    appliance.sys.run(&cmd).map(drop)
}
