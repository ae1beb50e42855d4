//! What is to be done in a registry, which tokens are for.

/// A repository, and what is done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// None for the list of all.
    repository: String,
    pushes: bool,
    /// Repositories that are read besides.
    others: Vec<String>,
}

impl Access {
    /// To read.
    pub fn pull(repository: &str) -> Self {
        Self {
            repository: repository.into(),
            pushes: false,
            others: Vec::new(),
        }
    }

    /// To read and write; `others` are read, to have their blobs here, too.
    pub fn push(repository: &str, others: Vec<String>) -> Self {
        Self {
            repository: repository.into(),
            pushes: true,
            others,
        }
    }

    /// To see which repositories there are.
    pub fn catalog() -> Self {
        Self::pull("")
    }

    /// Which one.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// As whoever gives tokens calls it.
    pub(super) fn scopes(&self) -> Vec<String> {
        if self.repository.is_empty() {
            return vec!["registry:catalog:*".into()];
        }
        let actions = if self.pushes { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository);
        let others = self
            .others
            .iter()
            .map(|other| format!("repository:{other}:pull"));
        std::iter::once(own).chain(others).collect()
    }

    /// All of it as one text.
    pub(super) fn key(&self) -> String {
        self.scopes().join(" ")
    }
}
