//! Where the library is: GRADREG_LIB_DIR if set, else what pkg-config says.
//!
//! GRADREG_LIB_DIR=DIR   the folder with libgradreg
//! GRADREG_STATIC=1      link libgradreg.a

use std::env;
use std::process::Command;

fn pkg_config(arguments: &[&str]) -> Option<Vec<String>> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_string());
    let output = Command::new(program)
        .args(arguments)
        .arg("gradreg >= 0.1")
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().map(str::to_string).collect())
}

fn main() {
    println!("cargo:rerun-if-env-changed=GRADREG_LIB_DIR");
    println!("cargo:rerun-if-env-changed=GRADREG_STATIC");
    for name in ["", "_PATH", "_LIBDIR", "_SYSROOT_DIR"] {
        println!("cargo:rerun-if-env-changed=PKG_CONFIG{}", name);
    }
    let fixed = env::var("GRADREG_STATIC").map_or(false, |word| word != "0");
    if let Ok(folder) = env::var("GRADREG_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", folder);
    } else {
        let asked: &[&str] = if fixed { &["--static", "--libs"] } else { &["--libs"] };
        let flags = pkg_config(asked).unwrap_or_else(|| {
            panic!(
                "libgradreg was not found: install it so that `pkg-config --libs gradreg` knows \
                 it, or set GRADREG_LIB_DIR to the folder that holds it"
            )
        });
        for folder in flags.iter().filter_map(|flag| flag.strip_prefix("-L")) {
            println!("cargo:rustc-link-search=native={}", folder);
        }
        // The archive does not say what it needs itself; pkg-config does.
        for name in flags.iter().filter_map(|flag| flag.strip_prefix("-l")) {
            if name != "gradreg" {
                println!("cargo:rustc-link-lib={}", name);
            }
        }
    }
    if fixed {
        println!("cargo:rustc-link-lib=static=gradreg");
        println!("cargo:rustc-link-lib=m");
    } else {
        println!("cargo:rustc-link-lib=gradreg");
    }
}
