//! Decides what of a file a run does not use. A run has one session, its own, and opens no listener that its user could
//! reach later; what the file says about operators, other gateways, data planes and other tokens is taken
//! out, and told.

use crate::{AdditionProblem, AdditionProblems, Config, OperatorConfig, SessionView};

impl Config {
    /// Takes out what only `outgate serve` and `outgate minter` use; a line about it, if there was anything.
    ///
    /// # Errors
    /// The file follows a control plane: it says nothing about what is let out, and a run would ask nobody.
    pub(crate) fn for_a_run(&mut self) -> Result<Option<String>, AdditionProblems> {
        if let Some(control) = &self.control {
            return Err(AdditionProblems(vec![AdditionProblem::new(
                "control_in_run",
                format!(
                    "what the file lets out comes from {control}, which a run does not ask",
                    control = control.url
                ),
                "give a file with `destinations`, or send the command through the gateway that follows it (`outgate env`)",
            )]));
        }
        self.withheld = self.secret_files();
        let parts = [
            (
                "listen.transparent",
                !std::mem::take(&mut self.listen.transparent).is_empty(),
            ),
            (
                "listen.metrics",
                !std::mem::take(&mut self.listen.metrics).is_empty(),
            ),
            ("listen.operator", self.listen.operator.take().is_some()),
            ("listen.control", self.listen.control.take().is_some()),
            ("listen.xds", self.listen.xds.take().is_some()),
            ("listen.minter", self.listen.minter.take().is_some()),
            ("ca", self.ca.take().is_some()),
            ("minter", self.minter.take().is_some()),
            ("inbound", !std::mem::take(&mut self.inbound).is_empty()),
            ("envoy", self.envoy.take().is_some()),
            (
                "credentials.NAME.planes",
                !std::mem::take(&mut self.credential_planes).is_empty(),
            ),
            (
                "operator",
                std::mem::take(&mut self.operator) != OperatorConfig::default(),
            ),
            ("sessions.lifetime", self.sessions.lifetime.take().is_some()),
            (
                "sessions.view",
                std::mem::take(&mut self.sessions.view) != SessionView::default(),
            ),
            (
                "sessions.issuers",
                !std::mem::take(&mut self.sessions.issuers).is_empty(),
            ),
            (
                "audit.export",
                !std::mem::take(&mut self.audit.export).is_empty(),
            ),
        ];
        let unused: Vec<String> = parts
            .into_iter()
            .filter(|(_, is_there)| *is_there)
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        Ok((!unused.is_empty()).then(|| format!("not used by a run: {}", unused.join(", "))))
    }
}
