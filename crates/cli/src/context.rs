//! Clients made from the common options.

use fleuve_client::config::ShareConsumerConfig;
use fleuve_client::{Admin, Client, ClientConfig, ConsumerConfig, ProducerConfig, Properties};

use crate::args::Common;
use crate::failure::Failure;

/// The client side of a command: its properties, and clients made from them.
pub(crate) struct Context {
    properties: Properties,
}

impl Context {
    /// Reads `--command-config`; the address of the command line wins over the one in the file.
    pub(crate) fn new(common: &Common) -> Result<Self, Failure> {
        let mut properties = match &common.command_config {
            Some(path) => Properties::load(path)?,
            None => Properties::new(),
        };
        if let Some(server) = &common.bootstrap_server {
            properties.set("bootstrap.servers", server)?;
        } else if properties.get("bootstrap.servers").is_none() {
            properties.set("bootstrap.servers", DEFAULT_SERVER)?;
        }
        Ok(Self { properties })
    }

    /// Makes a context from properties that a tool has gathered.
    pub(crate) fn of(properties: Properties) -> Self {
        Self { properties }
    }

    /// Returns what a property is set to.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.properties.get(key)
    }

    /// Sets a property, over what the file says.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        Ok(self.properties.set(key, value)?)
    }

    /// Sets a property unless the file has it.
    pub(crate) fn set_default(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        if self.properties.get(key).is_none() {
            self.properties.set(key, value)?;
        }
        Ok(())
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, Failure> {
        Ok(ClientConfig::from_properties(&self.properties)?)
    }

    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.client_config()?).await?)
    }

    pub(crate) async fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::new(self.client().await?))
    }

    pub(crate) fn producer_config(&self) -> Result<ProducerConfig, Failure> {
        Ok(ProducerConfig::from_properties(&self.properties)?)
    }

    pub(crate) fn share_consumer_config(&self) -> Result<ShareConsumerConfig, Failure> {
        Ok(ShareConsumerConfig::from_properties(&self.properties)?)
    }

    pub(crate) fn consumer_config(&self) -> Result<ConsumerConfig, Failure> {
        Ok(ConsumerConfig::from_properties(&self.properties)?)
    }
}

/// Where a broker is if nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "localhost:9092";
