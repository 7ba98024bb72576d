//! What a page does with the browser build of `taut`. `wasm.test.js` loads it with `globalThis.wanted = { test, url }`
//! and waits for `globalThis.outcome`: `passed`, or what went wrong.

#[cfg(target_family = "wasm")]
mod page;

fn main() {
    #[cfg(target_family = "wasm")]
    page::main();
}
