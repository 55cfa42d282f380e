//! What is generated from `proto/`: the names it starts from, and what they reach.

pub(crate) mod reach;
pub(crate) mod roots;

use std::{fs, path::PathBuf};

use prost_types::FileDescriptorSet;
use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

/// The folder of this crate.
pub(crate) fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source that the roots import, compiled.
pub(crate) fn compiled() -> FileDescriptorSet {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    let files = roots::TYPED_FILES.iter().chain(roots::CONFIGURATION);
    compiler.open_files(files).unwrap();
    compiler.file_descriptor_set()
}

/// The folder `proto/`.
///
/// The compiler takes a package for visible that a file does not itself import; `protoc` does not. Where that turns
/// a relative name into another one, the name is made absolute.
struct Sources;

const AMBIGUOUS: &[&str] = &["dynamic_forward_proxy", "ratelimit"];

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let path = home().join("proto").join(name);
        let text = fs::read_to_string(path).map_err(|_| Error::file_not_found(name))?;
        let text = AMBIGUOUS.iter().fold(text, |text, package| {
            let relative = format!(" common.{package}.v3.");
            text.replace(
                &relative,
                &format!(" .envoy.extensions.{}", relative.trim_start()),
            )
        });
        File::from_source(name, &text)
    }
}
