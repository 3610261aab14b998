//! Which listeners an app needs, besides that of HTTP, for `marram up`.

use std::net::{Ipv4Addr, SocketAddr};

use marram_core::manifest::{Manifest, On};
use marram_node::{MqttConfig, NodeConfig, S3Config};

use crate::cmd::node::ListenArgs;

/// Where MQTT clients look if nobody tells them.
const MQTT_PORT: u16 = 1883;
/// Where S3 servers of one's own usually are.
const S3_PORT: u16 = 9000;

/// What an app uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    mqtt: bool,
    s3: bool,
}

impl Wants {
    /// What its manifest says: triggers, streams and grants of MQTT; buckets, triggers and grants of objects.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let mut wants = Self {
            mqtt: manifest.streams.values().any(|stream| !stream.mqtt.is_empty()),
            s3: !manifest.buckets.is_empty(),
        };
        for function in &manifest.functions {
            wants.mqtt |= !function.allow.mqtt.is_empty() || function.on.iter().any(|on| matches!(on, On::Mqtt(_)));
            wants.s3 |= !function.allow.blob.is_empty() || function.on.iter().any(|on| matches!(on, On::Object(_)));
        }
        wants
    }

    /// A node with these listeners, where the command line says nothing of them: on this machine alone, at their usual ports if
    /// those are free.
    pub(crate) fn listeners(self, said: &ListenArgs) -> NodeConfig {
        let at = |port, wanted: bool| wanted.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (mqtt, s3) = (self.mqtt && said.mqtt.is_none(), self.s3 && said.s3.is_none());
        NodeConfig {
            mqtt: MqttConfig { listen: at(MQTT_PORT, mqtt), any_port: mqtt, ..MqttConfig::default() },
            s3: S3Config { listen: at(S3_PORT, s3), any_port: s3, ..S3Config::default() },
            ..NodeConfig::default()
        }
    }

    /// The same, and what the command line says something of: nobody has to be told of that.
    pub(crate) const fn or_said(self, said: &ListenArgs) -> Self {
        Self { mqtt: self.mqtt || said.mqtt.is_some(), s3: self.s3 || said.s3.is_some() }
    }

    /// Takes in what the app uses now. Whether that is more than ever before.
    pub(crate) fn grow(&mut self, now: Self) -> bool {
        let all = Self { mqtt: self.mqtt | now.mqtt, s3: self.s3 | now.s3 };
        std::mem::replace(self, all) != all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn wants(more: &str) -> Wants {
        let head = "manifest_version = 1\n[app]\nname = \"site\"\n[stream.s]\n";
        Wants::of(&Manifest::parse(&format!("{head}{more}")).unwrap())
    }

    #[test]
    fn an_app_wants_what_its_manifest_names() {
        let function = |more: &str| wants(&format!("[[function]]\nname = \"f\"\ncomponent = \"f.js\"\n{more}"));
        assert_eq!(wants(""), Wants::default());
        assert_eq!(function("on = [{ http = \"/\" }, { key = \"a/*\" }]"), Wants::default());
        for mqtt in ["on = [{ mqtt = \"plant/#\" }]", "allow = { mqtt = [\"commands/#\"] }"] {
            assert_eq!(function(mqtt), Wants { mqtt: true, s3: false }, "{mqtt}");
        }
        assert_eq!(wants("mqtt = [\"plant/#\"]"), Wants { mqtt: true, s3: false });
        for s3 in ["on = [{ object = \"uploads/*\" }]", "allow = { blob = [\"uploads\"] }"] {
            assert_eq!(function(s3), Wants { mqtt: false, s3: true }, "{s3}");
        }
        let mut seen = wants("[bucket.uploads]");
        assert!(!seen.grow(Wants::default()) && seen.grow(Wants { mqtt: true, s3: false }));
        assert_eq!(seen, Wants { mqtt: true, s3: true });
    }
}
