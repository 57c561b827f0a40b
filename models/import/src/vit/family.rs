//! The family of a vision transformer, from the tensors that it has.

use super::{
    Family, VitError,
    names::Tower,
    schemes::{Library, Position, Qkv, Swiglu},
};

impl Tower<'_> {
    /// The family, from the tokens and scales that exist.
    pub fn family(&self) -> Result<Family, VitError> {
        let scheme = self.scheme;
        self.check_blocks()?;
        let class = self.has(scheme.class);
        let scaled = self.block_has(0, scheme.scale1);
        if let Position::Rotary(_) = scheme.position {
            return self.rotary_family(class, scaled);
        }
        let pre_norm = self.has(&format!("{}.weight", scheme.pre_norm));
        let registers = self.registers_name();
        match (class, scaled, pre_norm) {
            (true, false, true) => Ok(Family::Clip),
            (true, true, false) => Ok(Family::DinoV2),
            (false, false, false) if registers.is_none() => Ok(Family::SigLip),
            _ => {
                let parts = [
                    (class, scheme.class, self.full(scheme.class)),
                    (
                        scaled,
                        scheme.scale1,
                        self.blocks[0].clone() + scheme.scale1,
                    ),
                    (pre_norm, scheme.pre_norm, self.full(scheme.pre_norm)),
                    (
                        true,
                        registers.unwrap_or(""),
                        self.full(registers.unwrap_or("")),
                    ),
                ];
                let parts: Vec<String> = parts
                    .iter()
                    .filter(|(_, name, _)| !name.is_empty())
                    .map(|(there, _, full)| {
                        format!("{} {full}", if *there { "with" } else { "no" })
                    })
                    .collect();
                let parts = parts.join(", ");
                Err(self.unsupported(format!(
                    "a vision transformer that is not DINOv2, DINOv3, CLIP or SigLIP: {parts}"
                )))
            }
        }
    }

    /// DINOv3, unless it is another model with rotary positions.
    fn rotary_family(&self, class: bool, scaled: bool) -> Result<Family, VitError> {
        // Others of timm's Eva class have the same names and rotate differently, but none has a
        // class token, registers and no learned positions.
        let stored = matches!(self.scheme.position, Position::Rotary(name) if !name.is_empty());
        let own = stored
            || self.scheme.library == Library::Transformers
            || self.registers_name().is_some();
        let others = ["pos_embed", "rope.freqs"];
        let other = others.into_iter().find(|name| self.has(name));
        let what = match other {
            Some(name) => format!("with {}", self.full(name)),
            None if !class => format!("no {}", self.full(self.scheme.class)),
            None if !scaled => format!("no {}{}", self.blocks[0], self.scheme.scale1),
            None if !own => format!("no {}", self.full(self.scheme.registers[0])),
            None => return Ok(Family::DinoV3),
        };
        Err(self.unsupported(format!(
            "a vision transformer that resembles DINOv3, but {what}"
        )))
    }

    /// Rejects blocks with tensors that the graph would ignore.
    fn check_blocks(&self) -> Result<(), VitError> {
        let s = self.scheme;
        let mut known: Vec<String> = [s.norm1, s.proj, s.norm2, s.fc1, s.fc2]
            .iter()
            .flat_map(|m| [format!("{m}.weight"), format!("{m}.bias")])
            .collect();
        match s.qkv {
            Qkv::Fused(weight, bias) => known.extend([weight.into(), bias.into()]),
            Qkv::Masked(weight, biases) | Qkv::Biased(weight, biases) => {
                known.push(weight.into());
                known.extend(biases.map(String::from));
            }
            Qkv::Split(modules) => {
                known.extend(
                    modules
                        .iter()
                        .flat_map(|m| [format!("{m}.weight"), format!("{m}.bias")]),
                );
            }
        }
        known.extend([s.scale1.into(), s.scale2.into()]);
        let swiglu: &[&str] = match &s.swiglu {
            Swiglu::None => &[],
            Swiglu::Fused(names) => names,
            Swiglu::Split(names) => names,
        };
        known.extend(
            swiglu
                .iter()
                .flat_map(|m| [format!("{m}.weight"), format!("{m}.bias")]),
        );
        for name in self.checkpoint.names() {
            let Some(path) = name.strip_prefix(&self.stem) else {
                continue;
            };
            let rest = path.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            if !known.iter().any(|k| k == rest) {
                return Err(self.unsupported(format!("the block's tensor {name}")));
            }
        }
        Ok(())
    }
}
