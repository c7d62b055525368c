from synthaug.generation import Plan, Sampler
def test_it(tiny_lora, tiny_base):
    plan = Plan.for_lora(tiny_lora, count=2, steps=3)
    a = Sampler(str(tiny_base))(list(plan))
    b = Sampler(str(tiny_base))([r for r in Plan.for_lora(tiny_lora, count=2, steps=3, ) ])
    assert a.shape == (2,3,32,32) and (a==b).all()
    c = Sampler(str(tiny_base))(list(Plan.for_lora(tiny_lora, weight=0.0, count=2, steps=3)))
    print((a.float()-c.float()).abs().mean(), a.float().std())
