"""What the Python suites share. A suite ends with Check's closing line, so that its tests are counted."""
import gc
import sys
import unittest

SKIPPED = 77  # what meson reads as skipped


def rows(cases):
    """Run a test once per (title, ...) row, each as a subtest."""
    def decorate(test):
        def every(self):
            for title, *row in cases:
                with self.subTest(title):
                    test(self, *row)
        every.__name__ = test.__name__
        return every
    return decorate


class Case(unittest.TestCase):
    """A test's name is a sentence."""

    def refused(self, kinds, words, call, *arguments, **more):
        """The call raises every one of these kinds, and its sentence has every one of these words."""
        with self.assertRaises(Exception) as caught:
            call(*arguments, **more)
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            self.assertIsInstance(caught.exception, kind, caught.exception)
        for word in words if isinstance(words, (list, tuple)) else (words,):
            self.assertIn(word, str(caught.exception))
        return caught.exception


def main(*modules, needs=()):
    """Run the tests of the calling script; needs: (module, package) without which they are skipped."""
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromModule(module) for module in modules) if modules \
        else loader.loadTestsFromModule(sys.modules["__main__"])
    for module, package in needs:
        try:
            __import__(module)
        except ImportError:
            print(f"SKIPPED, all of them: {package} is not installed")
            sys.exit(SKIPPED)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    gc.collect()
    good = result.testsRun - len(result.failures) - len(result.errors)
    if result.skipped:
        print(f"SKIPPED {len(result.skipped)}: " + "; ".join(sorted({why for _, why in result.skipped})))
    print(f"{100 * good // max(result.testsRun, 1)}%: Checks: {result.testsRun}, "
          f"Failures: {len(result.failures)}, Errors: {len(result.errors)}")
    sys.exit(not result.wasSuccessful() or result.testsRun == 0)
