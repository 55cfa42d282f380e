//! Cuts a set of sources down to what some names reach: no code and no descriptor for the rest, and none of the
//! options (validation, annotations), which nothing reads at run time.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

/// Where every name is declared, and which names it needs.
#[derive(Default)]
struct Index {
    file: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
}

/// The names (`.package.Message`) of all messages that `files` declare.
pub(crate) fn declared_in(set: &FileDescriptorSet, files: &[&str]) -> Vec<String> {
    let index = Index::of(set);
    let declared = index.file.into_iter();
    declared
        .filter(|(_, file)| files.contains(&file.as_str()))
        .map(|(name, _)| name)
        .collect()
}

/// `seeds`, and every message that contains one of them.
pub(crate) fn containing(set: &FileDescriptorSet, seeds: &[&str]) -> BTreeSet<String> {
    let index = Index::of(set);
    let mut found: BTreeSet<String> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
    for seed in &found {
        assert!(index.needs.contains_key(seed), "nothing declares {seed}");
    }
    loop {
        let before = found.len();
        for (name, needs) in &index.needs {
            if needs.iter().any(|need| found.contains(need)) {
                found.insert(name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The part of `set` that `roots` reach, without comments and options.
pub(crate) fn cut(set: &FileDescriptorSet, roots: &[String]) -> FileDescriptorSet {
    let index = Index::of(set);
    let mut reached = BTreeSet::new();
    let mut open = roots.to_vec();
    while let Some(name) = open.pop() {
        let needs = index.needs.get(&name);
        let needs = needs.unwrap_or_else(|| panic!("nothing declares {name}"));
        if reached.insert(name) {
            open.extend(needs.iter().cloned());
        }
    }
    let files = set.file.iter().map(|file| cut_file(file, &reached, &index));
    FileDescriptorSet {
        file: files.filter(|file| !is_empty(file)).collect(),
    }
}

fn is_empty(file: &FileDescriptorProto) -> bool {
    file.message_type.is_empty() && file.enum_type.is_empty() && file.service.is_empty()
}

fn cut_file(
    file: &FileDescriptorProto,
    reached: &BTreeSet<String>,
    index: &Index,
) -> FileDescriptorProto {
    let scope = format!(".{}", file.package());
    let mut kept = FileDescriptorProto {
        name: file.name.clone(),
        package: file.package.clone(),
        syntax: file.syntax.clone(),
        message_type: cut_messages(&file.message_type, &scope, reached),
        enum_type: cut_enums(&file.enum_type, &scope, reached),
        ..Default::default()
    };
    for service in &file.service {
        if reached.contains(&format!("{scope}.{}", service.name())) {
            let mut service = service.clone();
            service.options = None;
            service.method.iter_mut().for_each(|m| m.options = None);
            kept.service.push(service);
        }
    }
    let mut imports = BTreeSet::new();
    let mut needs = Vec::new();
    for (name, at) in &index.file {
        if at == file.name() && reached.contains(name) {
            needs.extend(index.needs[name].iter());
        }
    }
    for need in needs {
        imports.insert(index.file[need].clone());
    }
    imports.remove(file.name());
    kept.dependency = imports.into_iter().collect();
    kept
}

/// A message that is kept only for what it contains has no fields.
fn cut_messages(
    messages: &[DescriptorProto],
    scope: &str,
    reached: &BTreeSet<String>,
) -> Vec<DescriptorProto> {
    let mut kept = Vec::new();
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        let wanted = reached.contains(&name);
        let mut cut = DescriptorProto {
            name: message.name.clone(),
            nested_type: cut_messages(&message.nested_type, &name, reached),
            enum_type: cut_enums(&message.enum_type, &name, reached),
            ..Default::default()
        };
        if wanted {
            cut.field = message.field.clone();
            cut.oneof_decl = message.oneof_decl.clone();
            let map_entry = message.options.as_ref().and_then(|o| o.map_entry);
            cut.options = map_entry.map(|entry| MessageOptions {
                map_entry: Some(entry),
                ..Default::default()
            });
        }
        for field in &mut cut.field {
            field.options = None;
            field.json_name = None;
        }
        cut.oneof_decl.iter_mut().for_each(|o| o.options = None);
        if wanted || !cut.nested_type.is_empty() || !cut.enum_type.is_empty() {
            kept.push(cut);
        }
    }
    kept
}

fn cut_enums(
    enums: &[EnumDescriptorProto],
    scope: &str,
    reached: &BTreeSet<String>,
) -> Vec<EnumDescriptorProto> {
    let reached = enums
        .iter()
        .filter(|e| reached.contains(&format!("{scope}.{}", e.name())));
    let mut kept: Vec<EnumDescriptorProto> = reached.cloned().collect();
    for cut in &mut kept {
        let aliased = cut.options.as_ref().is_some_and(|o| o.allow_alias());
        assert!(!aliased, "{} has aliases", cut.name());
        cut.options = None;
        cut.reserved_name.clear();
        cut.reserved_range.clear();
        cut.value.iter_mut().for_each(|value| value.options = None);
    }
    kept
}

impl Index {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut index = Self::default();
        for file in &set.file {
            let scope = format!(".{}", file.package());
            index.enter(file, &scope, &file.message_type, &file.enum_type);
            for service in &file.service {
                let methods = service.method.iter();
                let types = methods.flat_map(|m| [m.input_type(), m.output_type()]);
                let needs = types.map(str::to_owned).collect();
                index.add(file, format!("{scope}.{}", service.name()), needs);
            }
        }
        index
    }

    fn enter(
        &mut self,
        file: &FileDescriptorProto,
        scope: &str,
        messages: &[DescriptorProto],
        enums: &[EnumDescriptorProto],
    ) {
        for e in enums {
            self.add(file, format!("{scope}.{}", e.name()), Vec::new());
        }
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.enter(file, &name, &message.nested_type, &message.enum_type);
            let fields = message.field.iter();
            let needs = fields.filter_map(|f| f.type_name.clone()).collect();
            self.add(file, name, needs);
        }
    }

    fn add(&mut self, file: &FileDescriptorProto, name: String, needs: Vec<String>) {
        self.file.insert(name.clone(), file.name().to_owned());
        self.needs.insert(name, needs);
    }
}
