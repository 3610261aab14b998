//! A function is one module. An import of anything else is refused with the way to bundle it.

use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::Declared;
use rquickjs::{Ctx, Exception, Module, Result};

/// Refuses every import.
pub(crate) struct NoImports;

impl Resolver for NoImports {
    fn resolve<'js>(&mut self, ctx: &Ctx<'js>, base: &str, name: &str, _: Option<ImportAttributes<'js>>) -> Result<String> {
        Err(Exception::throw_type(ctx, &refusal(base, name)))
    }
}

impl Loader for NoImports {
    fn load<'js>(&mut self, ctx: &Ctx<'js>, name: &str, _: Option<ImportAttributes<'js>>) -> Result<Module<'js, Declared>> {
        Err(Exception::throw_type(ctx, &refusal("the module", name)))
    }
}

fn refusal(base: &str, name: &str) -> String {
    format!(
        "{base} imports '{name}', but a function is one file; \
         bundle it first: npx esbuild {base} --bundle --format=esm --outfile=dist/index.js"
    )
}
