//! Makes what a page can load of a program for wasm32-unknown-unknown, as the command `wasm-bindgen --target web
//! --no-typescript` does, of which this is the library: to build that command takes long, and the test needs no more of it.
//!
//! ```sh
//! bindgen FILE.wasm NAME FOLDER
//! ```

use std::env;
use std::error::Error;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version"] => println!("bindgen {}", env!("CARGO_PKG_VERSION")),
        [program, name, folder] => {
            let mut bindgen = Bindgen::new();
            bindgen.input_path(program).out_name(name).web(true)?.typescript(false);
            // The page does not say where the other file is.
            bindgen.omit_default_module_path(false).generate(folder)?;
        }
        _ => return Err("usage: bindgen FILE.wasm NAME FOLDER".into()),
    }
    Ok(())
}
